"""A row of any data set in one form, and the three parts a trial sees."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
"""The label of a word that belongs to no entity."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its texts and, if labelled, the answer to learn."""

    id: str
    texts: tuple[str, ...]
    """(text,), (prompt, answer A, answer B), or the words of a text, each with the space before it."""
    label: tuple[float, ...] | None
    """A probability per class, a single number, or the class of every word; None without a label."""
    group: str
    """Rows of one group stay in one part: the prompt, or the text."""
    weight: float = 1.0
    """Its weight in the loss."""


class LabelledRows(NamedTuple):
    """The labelled rows of a file."""

    records: list[Record]
    classes: list[str]
    notes: list[str]
    """Changes made while reading, a line each: dropped blanks, merged spellings, lists in Python's notation."""


@dataclass(frozen=True)
class Parts:
    """The rows for training, for choosing trials, and for scoring once at the end."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    classes: list[str]
    """In the order of a label's entries; for numbers the column's name, for language modelling none."""
    bayes_log_loss: float | None = None
    """The lowest log loss that can be expected given the content, in nats, where it is known (generated data)."""
    notes: list[str] = field(default_factory=list)
    """Changes made while reading its files, a line each."""
    extra: list[Record] = field(default_factory=list)
    """More rows for training, from other files, with weights of their own."""


def group_codes(groups: Sequence[str]) -> NDArray[np.int64]:
    """A number for each group, equal for equal groups in every run, from which its text cannot be read."""
    codes = {group: _code(group) for group in dict.fromkeys(groups)}
    return np.array([codes[group] for group in groups], dtype=np.int64)


def _code(group: str) -> int:
    digest = blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def swapped(record: Record) -> Record:
    """The same row with its answers and their labels exchanged."""
    prompt, a, b = record.texts
    label = record.label and (record.label[1], record.label[0], *record.label[2:])
    return replace(record, texts=(prompt, b, a), label=label)
