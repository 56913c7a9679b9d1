"""Labels as files spell them: blanks around them, several spellings of one number, and missing ones."""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, final

from danube_sweep.config.neutral_text import plain_cell
from danube_sweep.data.read_files import as_text, some_lines

_MOST_NAMED = 5
_NO_NUMBER = {"na", "n/a", "none", "null", "<na>", "nat"}
"""Beside labels that are all numbers these mean a missing one; beside texts they are texts."""


def label_text(value: Any) -> str:
    """A label without the blanks around it; "" for a missing one: null, NaN or blanks alone.

    One that a csv of ours spells for spreadsheets is read back.
    """
    text = plain_cell(as_text(value).strip())
    return "" if text.lower() == "nan" else text


def to_number(value: Any) -> float:
    """The value as a number; NaN if it is not one."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def is_number(label: str) -> bool:
    """Whether a label is a finite number."""
    return math.isfinite(to_number(label))


def sorted_classes(labels: Iterable[str]) -> list[str]:
    """In numeric order if every label is a finite number, else in the order of their characters."""
    found = list(labels)
    if not all(map(is_number, found)):
        return sorted(found)
    return sorted(found, key=lambda label: (float(label), label))


def distinct_labels(labels: Iterable[str]) -> set[str]:
    """The classes among labels: numbers, if all are, once by value and in their shortest spelling."""
    found = set(labels)
    if not all(map(is_number, found)):
        return found
    spelled: dict[Decimal | float, list[str]] = defaultdict(list)
    for label in found:
        spelled[_value(label)].append(label)
    return {min(spellings, key=lambda label: (len(label), label)) for spellings in spelled.values()}


def missing_beside_numbers(labels: Iterable[str]) -> set[str]:
    """Which of the labels are words for a missing number, where all others are numbers; else none."""
    found = set(labels)
    words = {label for label in found if label.lower() in _NO_NUMBER}
    rest = found - words
    return words if rest and all(map(is_number, rest)) else set()


@final
class ClassIndex:
    """Finds the class of a label: by value if all classes are numbers, else by its characters."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_value = all(map(is_number, names))
        self._places = {self._key(name.strip()): place for place, name in enumerate(names)}

    def __len__(self) -> int:
        """The classes that can be told apart."""
        return len(self._places)

    def place(self, label: str) -> int | None:
        """The number of the label's class; None if it is not a known class."""
        return self._places.get(self._key(label))

    def _key(self, label: str) -> "Decimal | float | str":
        return _value(label) if self._by_value and is_number(label) else label


@final
class LabelNotes:
    """Changes to the labels of a file, reported in a line each."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._blanks: list[int] = []
        self._cells: list[int] = []
        self._example = ""
        self._spellings: dict[str, set[str]] = defaultdict(set)

    def seen(self, line: int, value: Any, label: str, name: str) -> None:
        """A label of a line: as written, without blanks, and its class."""
        if isinstance(value, str) and value != value.strip():
            self._blanks.append(line)
            self._example = self._example or value
        elif isinstance(value, str) and value != label:
            self._cells.append(line)
        self._spellings[name].add(label)

    def lines(self) -> list[str]:
        """The notes, in the order of their weight."""
        notes = []
        if merged := self._merged():
            notes.append(f"{self._where}: the labels are numbers and compare by value: {merged}")
        if self._blanks:
            lines = some_lines(sorted(set(self._blanks)))
            notes.append(f"{self._where}: blanks around labels are dropped in {lines}, like {self._example!r}")
        if self._cells:
            lines = some_lines(sorted(set(self._cells)))
            notes.append(f"{self._where}: labels spelled for spreadsheets are read back in {lines}")
        return [*notes, *self._alike()]

    def _merged(self) -> str:
        several = [sorted(found | {name}) for name, found in self._spellings.items() if found - {name}]
        said = [f"{' and '.join(found)} are one class" for found in several[:_MOST_NAMED]]
        more = [f"{len(several) - _MOST_NAMED} more"] if len(several) > _MOST_NAMED else []
        return ", ".join([*said, *more])

    def _alike(self) -> list[str]:
        folded: dict[str, list[str]] = defaultdict(list)
        for name in self._spellings:
            folded[unicodedata.normalize("NFKC", name).casefold()].append(name)
        several = [sorted(names) for names in folded.values() if len(names) > 1]
        said = ", ".join(" and ".join(map(repr, names)) for names in several[:_MOST_NAMED])
        return [f"{self._where}: classes that differ only in upper and lower case or form: {said}"] if said else []


def _value(label: str) -> Decimal | float:
    # Exact: as floats 9007199254740993 and 9007199254740992 would be one class.
    try:
        return Decimal(label)
    except InvalidOperation:
        return float(label)
