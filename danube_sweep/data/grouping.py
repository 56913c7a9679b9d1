"""Which rows belong together: by a column, by equal texts, or by texts that one template made."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from danube_sweep.config.schema import Comparison, Data, GroupBy, Labelled
from danube_sweep.data.records import OUTSIDE, Record

READ_CHARACTERS = 1000
"""A text's template is that of its beginning, where long texts show their shared parts. There may be 57,000 texts."""

FEWEST_WORDS = 3
"""A template with fewer of its own words is meaningless: "How _" would join all titles that begin with How."""

_ADDRESS = re.compile(r"\S*(?:@|://)\S*")
_QUOTED = re.compile('"[^"\n]{1,200}"|\u201c[^\u201d\n]{1,200}\u201d')
_VARIABLE = re.compile(r"\d[\d.,:/-]*|[A-ZÀ-ÖØ-Þ](?<=[\w,;)] .)[\w'\u2019-]*")
_RUN = re.compile(r"_(?:[\s,]*_)+")
_WORD = re.compile(r"[^\W\d_]+")


def regrouped(records: Sequence[Record], data: Data, classes: Sequence[str]) -> list[Record]:
    """The records with the groups that `data.group_by` asks for; those of its column or prompt stay together too."""
    if data.group_by is None:
        return list(records)
    keys = row_keys(records, data, classes, data.group_by)
    joined = _joined([record.group for record in records], keys)
    return [replace(record, group=str(group)) for record, group in zip(records, joined, strict=True)]


def row_keys(records: Sequence[Record], data: Data, classes: Sequence[str], by: GroupBy) -> list[str]:
    """The value that rows of one group share: the normalised prompt or text, or its template."""
    if by is GroupBy.text:
        return [normalised(source(record, data)) for record in records]
    if data.labelled is Labelled.words:
        types = [None if name == OUTSIDE else re.sub("^[BI]-", "", name) for name in classes]
        return [_template_of_words(record, types) for record in records]
    return [template(source(record, data)) for record in records]


def source(record: Record, data: Data) -> str:
    """The text that identifies a row: its prompt, both answers without a prompt, or its only text."""
    if data.labelled is Labelled.words:
        return "".join(record.texts)
    if isinstance(data, Comparison):
        return record.texts[0] or "\0".join(sorted(record.texts[1:]))
    return record.texts[0]


def normalised(text: str) -> str:
    """The text in one form of Unicode, in lower case, with single blanks."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(folded.casefold().split())


def template(text: str) -> str:
    """The text with a gap for each number, quotation, address, link and name (a capital inside a sentence).

    A text that keeps too few words of its own is its own template.
    """
    gaps = " ".join(text[:READ_CHARACTERS].split())
    if "@" in gaps or "://" in gaps:
        gaps = " ".join("_" if _ADDRESS.fullmatch(word) else word for word in gaps.split(" "))
    gaps = _RUN.sub("_", _VARIABLE.sub("_", _QUOTED.sub("_", gaps)))
    enough = sum(1 for _ in islice(_WORD.finditer(gaps), FEWEST_WORDS)) == FEWEST_WORDS
    return normalised(gaps if enough else text)


def _template_of_words(record: Record, types: Sequence[str | None]) -> str:
    """The words with each entity, however many words it has, replaced by its type, and numbers by a gap."""
    found: list[str] = []
    for word, place in zip(record.texts, record.label or (), strict=True):
        kind = types[int(place)]
        said = re.sub(r"\d+", "_", word.strip()) if kind is None else f"<{kind}>"
        if kind is None or found[-1:] != [said]:
            found.append(said)
    return normalised(" ".join(found))


def _joined(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """A number a row, the same for rows that share a first or a second key, directly or through other rows."""
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]  # shorter paths for later
            node = parent
        return node

    for one, other in zip(first, second, strict=True):
        parents[root((0, one))] = root((1, other))
    numbers: dict[tuple[int, str], int] = {}
    return [numbers.setdefault(root((0, one)), len(numbers)) for one in first]
