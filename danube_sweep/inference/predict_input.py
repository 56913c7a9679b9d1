"""A file to predict: every row of it read once and found right before a model is loaded, and the id of each row."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from danube_sweep.config.schema import Data
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.data.read_files import as_text, read_rows, refuse_missing, some_lines
from danube_sweep.data.records import Record
from danube_sweep.errors import DataError

FIELD = "input"
"""The name of the file in messages."""


@dataclass(frozen=True)
class Input:
    """A file to predict, all of whose rows can be read."""

    path: Path
    data: Data
    ids: list[str]
    """One for each row, in the file's order."""
    id_column: str | None
    """The column of the ids, spelt as in the file; None if the rows are numbered from 1."""
    notes: list[str]
    field: str = FIELD
    """Its name in messages."""

    def records(self) -> Iterator[Record]:
        """The rows, read again. Raises DataError for a file that has changed since it was checked."""
        rows = read_unlabelled(self.data, self.path, self.field)
        count = 0
        for name, record in zip(self.ids, rows, strict=False):
            count += 1
            yield replace(record, id=name)
        if count < len(self.ids) or next(rows, None) is not None:
            raise DataError(f"{self.field}={self.path}: the file was changed while it was read; predict it again")


def check_input(
    data: Data, path: Path, id_column: str | None = None, sample: Sequence[str] = (), field: str = FIELD
) -> Input:
    """Reads the whole file. `data` is the run's, `sample` the columns of a sample submission.

    `field` names the file in messages; with another than the default, an id column is chosen by data.id_column.

    The first of these that exists holds the ids: `id_column`; the run's data.id_column; the first column of `sample`,
    if the file has it; a column called id in any case. Without one the rows are numbered.

    Raises DataError, with the lines, for rows that cannot be read and for rows without an id.
    """
    known = getattr(data, "id_column", None)
    if known is not None:
        without: dict[str, Any] = {"id_column": None}
        data = replace(data, **without)
    chooses = "--id-column" if field == FIELD else "data.id_column"
    count = sum(1 for _ in read_unlabelled(data, path, field))
    where = f"{field}={path}"
    _, first = next(read_rows(path, [], field))
    of_sample = [name for name in sample[:1] if name in first]
    column = _id_column(where, list(first), id_column, known, of_sample, chooses)
    if column is None:
        note = f"{where}: no column id, Id or ID, and no {chooses}: its rows are numbered from 1"
        return Input(path, data, [str(number + 1) for number in range(count)], None, [note], field)
    if column in _read_as_text(data):
        raise DataError(f"{where}: {column!r} is a text that the run reads; give {chooses} another one")
    lines, values = zip(*((line, row.get(column)) for line, row in read_rows(path, [], field)), strict=True)
    refuse_missing(where, column, [line for line, value in zip(lines, values, strict=True) if _is_missing(value)])
    ids = [id_text(value) for value in values]
    return Input(path, data, ids, column, _repeated(where, column, ids, lines), field)


def id_text(value: Any) -> str:
    """An id of any type as text: a UUID, a date or a decimal as Python prints it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") if len(value) != 16 else value.hex()
    return as_text(value) if isinstance(value, str | int | float | list | dict) else str(value)


def _id_column(
    where: str, names: list[str], asked: str | None, known: str | None, sample: list[str], chooses: str
) -> str | None:
    wanted = asked or known
    if wanted is not None and wanted not in names:
        field = f"--id-column {asked}" if asked else f"data.id_column={known}"
        numbered = "give data.id_column=null, then its rows are numbered"
        way_out = numbered if chooses == "data.id_column" else f"give --id-column one of {', '.join(names)}"
        raise DataError(f"{where}: no column {wanted!r} ({field}); {way_out}")
    if wanted is not None or sample:
        return wanted or sample[0]
    found = [name for name in names if name.lower() == "id"]
    if len(found) > 1:
        raise DataError(f"{where}: {' and '.join(map(repr, found))} could both hold the ids; choose one by {chooses}")
    return found[0] if found else None


def _read_as_text(data: Data) -> set[str]:
    columns = [one.name for one in fields(data) if one.name.endswith("_column")]
    return {str(getattr(data, name)) for name in columns if name not in ("id_column", "group_column", "label_column")}


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def _repeated(where: str, column: str, ids: Sequence[str], lines: Sequence[int]) -> list[str]:
    counts = Counter(ids)
    again = [line for name, line in zip(ids, lines, strict=True) if counts[name] > 1]
    if not again:
        return []
    return [f"{where}: {some_lines(again)} share their {column!r} with another row; each is predicted"]
