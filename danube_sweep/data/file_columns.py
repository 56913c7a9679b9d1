"""The columns of a file before anything in them is named: their values, and the questions asked of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

from danube_sweep.data.labels import is_number, label_text
from danube_sweep.data.read_files import as_list, as_text, check_columns, read_rows, refuse_separator
from danube_sweep.errors import DataError

MOST_ROWS = 20_000
MOST_CHARACTERS = 2**26
LISTS_LOOKED_AT = 200
SHORTEST_TEXT = 8
"""Characters that a column's values have on average to be taken for texts."""


@final
@dataclass(frozen=True)
class FileColumns:
    """The first rows of a file, by column."""

    path: str
    rows: int
    whole: bool
    """Whether the file has no more rows."""
    values: dict[str, list[Any]]

    @property
    def names(self) -> list[str]:
        """The columns, in the file's order."""
        return list(self.values)

    def named(self, names: Iterable[str], *, but: Sequence[str | None] = ()) -> str | None:
        """The first column with one of these names, in upper or lower case; None if there is none."""
        spelled = {name.strip().lower(): name for name in self.names if name not in but}
        return next((spelled[name] for name in names if name in spelled), None)

    def require(self, column: str, field: str) -> str:
        """The column, if it is there. Raises DataError, naming the field that asks for it."""
        check_columns(self.names, [column], f"{field}={column}: {self.path}")
        return column

    def labels(self, column: str) -> list[str]:
        """Its values as labels; missing ones are left out."""
        return [text for text in map(label_text, self.values[column]) if text]

    def distinct(self, column: str) -> int:
        """How many different values it has."""
        return len(set(map(as_text, self.values[column])))

    def are_numbers(self, column: str) -> bool:
        """Whether it has values, and all are finite numbers."""
        labels = self.labels(column)
        return bool(labels) and all(map(is_number, labels))

    def lists(self, column: str) -> list[list[Any]] | None:
        """Its first values as lists; None if one of them is none."""
        found = [as_list(value) for value in self.values[column][:LISTS_LOOKED_AT] if value is not None]
        return [one for one in found if one is not None] if found and None not in found else None

    def characters(self, column: str) -> float:
        """The mean length of its values."""
        return sum(len(as_text(value)) for value in self.values[column]) / max(self.rows, 1)

    def are_texts(self, column: str) -> bool:
        """Whether its values read like texts: long enough, mostly different, neither numbers nor lists."""
        if self.characters(column) < SHORTEST_TEXT or self.are_numbers(column) or self.lists(column) is not None:
            return False
        spaced = sum(" " in as_text(value).strip() for value in self.values[column])
        return self.distinct(column) * 2 > self.rows and spaced * 2 > self.rows

    def sizes(self, columns: Iterable[str]) -> list[int]:
        """The bytes of each row's texts in these columns."""
        rows = zip(*(self.values[column] for column in columns), strict=True)
        return [sum(len(as_text(value).encode("utf-8", "replace")) for value in row) for row in rows]


def read_columns(path: str | Path, field: str = "data.path") -> FileColumns:
    """The first 20,000 rows of a file, fewer if they are long. Raises DataError for a damaged or empty file."""
    reader = read_rows(path, [], field)
    taken: list[dict[str, Any]] = []
    characters = 0
    for _, row in islice(reader, MOST_ROWS):
        taken.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if characters > MOST_CHARACTERS:
            break
    whole = next(reader, None) is None
    if not taken:
        raise DataError(f"{field}={path}: the file has no rows; give one with a row for each example")
    names = list(dict.fromkeys(name for row in taken for name in row))
    if len(names) == 1:
        refuse_separator(names[0], f"{field}={path}, line 1")
    return FileColumns(str(path), len(taken), whole, {name: [row.get(name) for row in taken] for name in names})
