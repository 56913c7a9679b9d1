"""One text and one label a row, from columns that the config names."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from danube_sweep.data.arena import probabilities
from danube_sweep.data.read import Row, as_text, read_rows, some_lines
from danube_sweep.data.records import Record
from danube_sweep.errors import ConfigError, DataError
from danube_sweep.schema import TableColumns


def read_table(path: str | Path, data: TableColumns, field: str = "data.path") -> Iterator[Record]:
    """The rows without their labels, one at a time. Raises DataError, also for a row whose text is null."""
    columns = [data.text_column] if data.id_column is None else [data.text_column, data.id_column]
    for number, (line, row) in enumerate(read_rows(path, columns, field), 1):
        if row[data.text_column] is None:
            raise _missing(path, field, data.text_column, [line])
        yield _record(number, row, data, None)


def load_table(
    path: str | Path,
    data: TableColumns,
    *,
    classes: list[str] | None,
    field: str = "data.path",
    read: Callable[[str | Path, Sequence[str], str], Iterator[Row]] = read_rows,
) -> tuple[list[Record], list[str]]:
    """The labelled rows, and the classes: `classes`, or the labels that occur, sorted (as numbers if all are).

    Labels are text as in the file. Raises DataError for missing texts or labels and for labels outside `classes`.
    """
    names = data.soft_label_columns or [data.label_column]
    optional = [name for name in (data.id_column, data.group_column) if name is not None]
    rows = list(read(path, [data.text_column, *names, *optional], field))
    for column in [data.text_column, *([data.group_column] if data.group_column else [])]:
        _refuse_missing(path, field, column, [line for line, row in rows if row[column] is None])
    if data.soft_label_columns is None:
        labels, classes = _hard_labels(path, data, rows, classes, field)
    else:
        labels, classes = _soft_labels(path, data, rows, classes, field)
    records = [
        _record(number, row, data, label) for number, ((_, row), label) in enumerate(zip(rows, labels, strict=True), 1)
    ]
    return records, classes


def sorted_classes(labels: set[str]) -> list[str]:
    """In numeric order if every label is a finite number, else in the order of their characters."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if not all(math.isfinite(number) for number in numbers.values()):
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))


Labels = list[tuple[float, ...]]


def _hard_labels(
    path: str | Path, data: TableColumns, rows: list[tuple[int, dict[str, Any]]], classes: list[str] | None, field: str
) -> tuple[Labels, list[str]]:
    texts = [as_text(row[data.label_column]) for _, row in rows]
    _refuse_missing(
        path, field, data.label_column, [line for (line, _), text in zip(rows, texts, strict=True) if not text]
    )
    known = sorted_classes(set(texts)) if classes is None else classes
    index = {name: place for place, name in enumerate(known)}
    for (line, _), text in zip(rows, texts, strict=True):
        if text not in index:
            shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
            raise DataError(
                f"{field}={path}, line {line}: the label {text!r} is none of the {len(known)} classes ({shown}); "
                "correct it or list all in data.classes"
            )
    one_hot = [tuple(float(place == k) for place in range(len(known))) for k in range(len(known))]
    return [one_hot[index[text]] for text in texts], known


def _soft_labels(
    path: str | Path, data: TableColumns, rows: list[tuple[int, dict[str, Any]]], classes: list[str] | None, field: str
) -> tuple[Labels, list[str]]:
    columns = data.soft_label_columns or []
    known = classes or columns
    if len(known) != len(columns):
        raise ConfigError(
            f"data.classes has {len(known)} names for the {len(columns)} columns of data.soft_label_columns; "
            "give one name a column, or data.classes=null"
        )
    labels = [probabilities([row[name] for name in columns]) for _, row in rows]
    wrong = [line for (line, _), label in zip(rows, labels, strict=True) if label is None]
    if wrong:
        raise DataError(
            f"{field}={path}: {some_lines(wrong)} without a valid label; {', '.join(columns)} must be "
            "probabilities that sum to 1"
        )
    return [label for label in labels if label is not None], known


def _refuse_missing(path: str | Path, field: str, column: str, lines: list[int]) -> None:
    if lines:
        raise _missing(path, field, column, lines)


def _missing(path: str | Path, field: str, column: str, lines: list[int]) -> DataError:
    return DataError(f"{field}={path}: {some_lines(lines)} without a value in {column!r}; fill it in or drop the row")


def _record(number: int, row: dict[str, Any], data: TableColumns, label: tuple[float, ...] | None) -> Record:
    text = as_text(row[data.text_column])
    name = None if data.id_column is None else row[data.id_column]
    group = text if label is None or data.group_column is None else as_text(row[data.group_column])
    return Record(str(number) if name is None else as_text(name), (text,), label, group)
