"""Words with a label each, as lists, for entity recognition."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema import Columns, FileData, Labelled, Target, setting
from danube_sweep.data.kind import DataKind
from danube_sweep.data.labels import sorted_classes
from danube_sweep.data.parts import parts_of_files
from danube_sweep.data.read_files import (
    Row,
    as_list,
    as_text,
    is_printed_list,
    printed_lists_note,
    read_rows,
    row_id,
    rows_with_groups,
)
from danube_sweep.data.records import OUTSIDE, LabelledRows, Parts, Record
from danube_sweep.data.table_columns import check_classes, name_labels
from danube_sweep.errors import DataError


@dataclass
class TokensData(Columns, FileData, DataKind):
    """Words with a label each (BIO for entities): lists in jsonl or parquet."""

    labelled: ClassVar[Labelled] = Labelled.words

    tokens_column: str = setting("name of the column with the list of words", "tokens")
    labels_column: str = setting("name of the column with the list of labels", "labels")
    whitespace_column: str | None = setting(
        "name of the column that lists whether a space follows each word, such as trailing_whitespace; null for always",
        None,
    )
    id_column: str | None = setting("name of the id column; null numbers the rows", None)
    overlap: int = setting("tokens that pieces of an overlong text share, for context", 64)
    classes: list[str] | None = setting("labels in order; null uses those of the training rows, sorted", None)

    @property
    def overlap_tokens(self) -> int:
        return self.overlap

    def check(self) -> None:
        require(
            0 <= self.overlap < self.max_length,
            f"data.overlap must be at least 0 and under data.max_length={self.max_length}, got {self.overlap}",
        )
        require(
            self.classes is None or len(set(self.classes)) == len(self.classes) >= 2,
            f"data.classes needs at least two different names, got {self.classes}",
        )

    def load(self, target: Target) -> Parts:
        found = load_words(self.path, self, classes=self.classes)
        check_classes(f"data.path={self.path}", found.classes, target, ordered_by_config=True)

        def load(path: str, field: str) -> LabelledRows:
            return load_words(path, self, classes=found.classes, field=field)

        return parts_of_files(self, found, load)

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_words(path, self, field)


def read_words(path: str | Path, data: TokensData, field: str = "data.path") -> Iterator[Record]:
    """The rows without their labels, one at a time. Raises DataError, also for a row without words."""
    for number, (line, row) in enumerate(read_rows(path, _columns(data), field), 1):
        yield _record(number, (line, row), data, None, f"{field}={path}")


def load_words(
    path: str | Path, data: TokensData, *, classes: list[str] | None, field: str = "data.path"
) -> LabelledRows:
    """The labelled rows, and the classes: `classes`, or the labels that occur, sorted, O first.

    Raises DataError for missing labels, for rows with more or fewer labels than words and for labels outside
    `classes`.
    """
    where, column = f"{field}={path}", data.labels_column
    rows = rows_with_groups(path, [*_columns(data), column], data.group_column, field)
    found = [(line, _list(row, column, f"{where}, line {line}")) for line, row in rows]
    named, known, notes = name_labels(found, classes, where, column, _sorted)
    records = []
    for number, ((line, row), places) in enumerate(zip(rows, named, strict=True), 1):
        here = f"{where}, line {line}"
        record = _record(number, (line, row), data, tuple(map(float, places)), where)
        if len(places) != len(record.texts):
            raise DataError(f"{here}: {len(places)} labels for {len(record.texts)} words; give one label per word")
        records.append(record if data.group_column is None else replace(record, group=as_text(row[data.group_column])))
    printed = [line for line, row in rows if any(is_printed_list(row[name]) for name in (data.tokens_column, column))]
    return LabelledRows(records, known, [*notes, *printed_lists_note(where, printed)])


def _sorted(labels: Iterable[str]) -> list[str]:
    found = set(labels)
    rest = sorted_classes(found - {OUTSIDE})
    return [OUTSIDE, *rest] if OUTSIDE in found else rest


def _columns(data: TokensData) -> list[str]:
    columns = [data.tokens_column, data.whitespace_column, data.id_column]
    return [name for name in columns if name is not None]


def _record(number: int, numbered: Row, data: TokensData, label: tuple[float, ...] | None, file: str) -> Record:
    line, row = numbered
    where = f"{file}, line {line}"
    words = _texts(row, data.tokens_column, where)
    if not words:
        raise DataError(f"{where}: no words in {data.tokens_column!r}; drop the row")
    spaces = [True] * len(words) if data.whitespace_column is None else _spaces(row, data.whitespace_column, where)
    if len(spaces) != len(words):
        raise DataError(f"{where}: {len(spaces)} entries in {data.whitespace_column!r} for {len(words)} words")
    before = ["", *(" " if space else "" for space in spaces[:-1])]
    texts = tuple(space + word for space, word in zip(before, words, strict=True))
    return Record(row_id(numbered, data.id_column, number, file), texts, label, group="".join(texts))


def _texts(row: dict[str, Any], column: str, where: str) -> list[str]:
    return [as_text(value) for value in _list(row, column, where)]


def _spaces(row: dict[str, Any], column: str, where: str) -> list[bool]:
    values = _list(row, column, where)
    if not all(isinstance(value, bool) for value in values):
        raise DataError(f"{where}: {column!r} must be a list of true and false")
    return values


def _list(row: dict[str, Any], column: str, where: str) -> list[Any]:
    value = as_list(row[column])
    if value is None:
        raise DataError(f"{where}: {column!r} must be a list with one entry per word")
    return value


OPTION = TokensData
