"""Running text for language modelling: a text a row, from any number of files."""

from collections.abc import Sequence

from danube_sweep.data.read_files import as_text, read_rows, some_lines
from danube_sweep.data.records import Record
from danube_sweep.errors import DataError


def load_text(paths: Sequence[str], column: str, field: str = "data.path") -> list[Record]:
    """The texts of all files, numbered through. Raises DataError, also with the lines whose text is null."""
    records: list[Record] = []
    for path in paths:
        missing: list[int] = []
        for line, row in read_rows(path, [column], field):
            if row[column] is None:
                missing.append(line)
            text = as_text(row[column])
            records.append(Record(str(len(records) + 1), (text,), None, group=text))
        if missing:
            raise DataError(f"{field}={path}: {some_lines(missing)} without a value in {column!r}; drop them")
    return records
