"""One text and one label a row, from columns that the config names: a class, several, or a number."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from danube_sweep.config.schema import TableColumns, Target
from danube_sweep.data.arena_format import probabilities
from danube_sweep.data.labels import (
    ClassIndex,
    LabelNotes,
    distinct_labels,
    is_number,
    label_text,
    missing_beside_numbers,
    sorted_classes,
    to_number,
)
from danube_sweep.data.read_files import (
    Row,
    as_list,
    as_text,
    is_printed_list,
    printed_lists_note,
    read_rows,
    refuse_missing,
    row_id,
    rows_with_groups,
    some_lines,
)
from danube_sweep.data.records import LabelledRows, Record
from danube_sweep.errors import ConfigError, DataError


def read_table(path: str | Path, data: TableColumns, field: str = "data.path") -> Iterator[Record]:
    """The rows without their labels, one at a time. Raises DataError, also for a row whose text is null."""
    columns = [data.text_column] if data.id_column is None else [data.text_column, data.id_column]
    for number, (line, row) in enumerate(read_rows(path, columns, field), 1):
        if row[data.text_column] is None:
            refuse_missing(f"{field}={path}", data.text_column, [line])
        yield _record(number, (line, row), data, None, f"{field}={path}")


def load_table(
    path: str | Path,
    data: TableColumns,
    target: Target,
    *,
    classes: list[str] | None,
    field: str = "data.path",
    read: Callable[[str | Path, Sequence[str], str], Iterator[Row]] = read_rows,
) -> LabelledRows:
    """The labelled rows, and the classes: `classes`, or the labels that occur, sorted (as numbers if all are).

    Labels are texts without the blanks around them; if all are numbers, equal ones are one class. A number's only
    class is its column. Raises DataError for missing texts or labels, for labels outside `classes`, and for numbers
    that are none.
    """
    names = data.soft_label_columns or [data.label_column]
    optional = [] if data.id_column is None else [data.id_column]
    rows = rows_with_groups(path, [data.text_column, *names, *optional], data.group_column, field, read)
    where = f"{field}={path}"
    if not rows:
        raise DataError(f"{where}: the file has no rows; give one with rows")
    refuse_missing(where, data.text_column, [line for line, row in rows if row[data.text_column] is None])
    notes: list[str] = []
    if target is Target.number:
        labels, classes = _numbers(path, data, rows, field), [data.label_column]
    elif data.soft_label_columns is not None:
        labels, classes = _soft_labels(path, data, rows, classes, field, sum_to_1=target is not Target.many)
    else:
        labels, classes, notes = _named_labels(path, data, rows, classes, field, several=target is Target.many)
    records = [
        _record(number, row, data, label, where)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True), 1)
    ]
    return LabelledRows(records, classes, notes)


def check_classes(where: str, classes: list[str], target: Target, *, ordered_by_config: bool) -> None:
    """Raises DataError for classes that nothing can be learned of; `ordered_by_config`: data.classes orders them."""
    if not classes:
        raise DataError(f"{where}: no row has a class; give rows with at least one")
    if len(classes) == 1 and target is not Target.many:
        raise DataError(f"{where}: its only class is {classes[0]!r}; give rows of at least two classes")
    if target is Target.ordered and not ordered_by_config and not all(map(is_number, classes)):
        other = next(name for name in classes if not is_number(name))
        raise DataError(
            f"{where}: head=ordinal needs ordered classes, and {other!r} is not a number; list the order in "
            "data.classes"
        )


Labels = list[tuple[float, ...]]
Rows = list[tuple[int, dict[str, Any]]]


def _numbers(path: str | Path, data: TableColumns, rows: Rows, field: str) -> Labels:
    values = [to_number(row[data.label_column]) for _, row in rows]
    wrong = [line for (line, _), value in zip(rows, values, strict=True) if not math.isfinite(value)]
    if wrong:
        raise DataError(
            f"{field}={path}: {some_lines(wrong)} without a finite number in {data.label_column!r}; correct them, or "
            "name another column by data.label_column"
        )
    return [(value,) for value in values]


def _named_labels(
    path: str | Path, data: TableColumns, rows: Rows, classes: list[str] | None, field: str, *, several: bool
) -> tuple[Labels, list[str], list[str]]:
    column, where = data.label_column, f"{field}={path}"
    found = [(line, _listed(row[column], f"{where}, line {line}") if several else [row[column]]) for line, row in rows]
    printed = [line for line, row in rows if several and is_printed_list(row[column])]
    named, known, notes = name_labels(found, classes, where, column)
    labels = []
    for places in named:
        held = set(places)
        labels.append(tuple(float(place in held) for place in range(len(known))))
    return labels, known, [*notes, *printed_lists_note(where, printed)]


def name_labels(
    rows: Sequence[tuple[int, Sequence[Any]]],
    classes: list[str] | None,
    where: str,
    column: str,
    order: Callable[[Iterable[str]], list[str]] = sorted_classes,
) -> tuple[list[list[int]], list[str], list[str]]:
    """The classes of every label of a row, as numbers; the classes, in this `order` unless given; and the notes.

    Raises DataError for missing labels and for those outside `classes`, ConfigError for classes that are the same.
    """
    texts = [[label_text(value) for value in values] for _, values in rows]
    missing = {""} | (missing_beside_numbers(text for row in texts for text in row) if classes is None else set())
    lost = [line for (line, _), row in zip(rows, texts, strict=True) if any(text in missing for text in row)]
    refuse_missing(where, column, lost)
    known = order(distinct_labels(text for row in texts for text in row)) if classes is None else classes
    index, notes = ClassIndex(known), LabelNotes(where)
    if len(index) < len(known):
        raise ConfigError(f"data.classes: two of {', '.join(known[:10])} are the same class; give each once")
    places: list[list[int]] = []
    for (line, values), row in zip(rows, texts, strict=True):
        places.append([])
        for value, text in zip(values, row, strict=True):
            place = index.place(text)
            if place is None:
                raise _unknown(f"{where}, line {line}", text, known)
            notes.seen(line, value, text, known[place].strip())
            places[-1].append(place)
    return places, known, notes.lines()


def _unknown(where: str, label: str, classes: list[str]) -> DataError:
    shown = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    return DataError(
        f"{where}: the label {label!r} is not one of the {len(classes)} classes ({shown}); "
        "correct it or list all in data.classes"
    )


def _listed(value: Any, where: str) -> list[Any]:
    found = as_list(value)
    if found is None:
        raise DataError(
            f'{where}: head=multilabel reads a list of classes, like ["a", "b"]; for a column a class give '
            "data.soft_label_columns"
        )
    return found


def _soft_labels(
    path: str | Path, data: TableColumns, rows: Rows, classes: list[str] | None, field: str, *, sum_to_1: bool
) -> tuple[Labels, list[str]]:
    columns = data.soft_label_columns or []
    known = classes or columns
    if len(known) != len(columns):
        raise ConfigError(
            f"data.classes has {len(known)} names for the {len(columns)} columns of data.soft_label_columns; "
            "give one name per column, or data.classes=null"
        )
    read = probabilities if sum_to_1 else _each_a_probability
    labels = [read([row[name] for name in columns]) for _, row in rows]
    wrong = [line for (line, _), label in zip(rows, labels, strict=True) if label is None]
    if wrong:
        rule = "probabilities that sum to 1" if sum_to_1 else "probabilities, 0 to 1 each"
        raise DataError(
            f"{field}={path}: {some_lines(wrong)} without a valid label; {', '.join(columns)} must be {rule}"
        )
    return [label for label in labels if label is not None], known


def _each_a_probability(values: list[Any]) -> tuple[float, ...] | None:
    numbers = tuple(to_number(value) for value in values)
    return numbers if all(0 <= number <= 1 for number in numbers) else None


def _record(number: int, numbered: Row, data: TableColumns, label: tuple[float, ...] | None, where: str) -> Record:
    _, row = numbered
    text = as_text(row[data.text_column])
    group = text if label is None or data.group_column is None else as_text(row[data.group_column])
    return Record(row_id(numbered, data.id_column, number, where), (text,), label, group)
