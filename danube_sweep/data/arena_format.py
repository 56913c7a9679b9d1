"""Two answers to a prompt and which one people preferred, in the files of the LMSYS competition.

prompt, response_a and response_b hold JSON lists with a string per turn; winner_model_a, winner_model_b and
winner_tie say who won.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from danube_sweep.data.python_lists import is_numpy_array
from danube_sweep.data.read_files import (
    Row,
    as_list,
    as_text,
    is_printed_list,
    printed_lists_note,
    read_rows,
    row_id,
    rows_with_groups,
    some_lines,
)
from danube_sweep.data.records import LabelledRows, Record
from danube_sweep.errors import DataError

CLASSES = ["winner_model_a", "winner_model_b", "winner_tie"]
TEXTS = ["prompt", "response_a", "response_b"]
_WORDS = {"true": 1.0, "false": 0.0}
_TOLERANCE = 1e-3


def read_arena(path: str | Path, field: str = "data.path") -> Iterator[Record]:
    """The rows of an arena file without their labels, one at a time. Raises DataError."""
    for number, (line, row) in enumerate(read_rows(path, TEXTS, field), 1):
        _refuse_arrays(row, f"{field}={path}, line {line}")
        yield _record(number, (line, row), None, f"{field}={path}")


def load_arena(
    path: str | Path, *, soft_labels: bool, group_column: str | None = None, field: str = "data.path"
) -> LabelledRows:
    """The labelled rows of an arena file, grouped by their prompt or by a column.

    Raises DataError with the lines whose three winner columns are not one-hot or, with `soft_labels`, not
    nonnegative with a sum of 1 within 0.001.
    """
    records: list[Record] = []
    wrong: list[int] = []
    printed: list[int] = []
    for number, (line, row) in enumerate(rows_with_groups(path, [*TEXTS, *CLASSES], group_column, field), 1):
        label = probabilities([row[name] for name in CLASSES]) if soft_labels else one_hot(row)
        if label is None:
            wrong.append(line)
        _refuse_arrays(row, f"{field}={path}, line {line}")
        if any(is_printed_list(row[name]) for name in TEXTS):
            printed.append(line)
        record = _record(number, (line, row), label, f"{field}={path}")
        records.append(record if group_column is None else replace(record, group=as_text(row[group_column])))
    if wrong:
        rule = "probabilities that sum to 1" if soft_labels else "one 1 and two 0, or set data.soft_labels=true"
        raise DataError(
            f"{field}={path}: {some_lines(wrong)} without a valid label; {', '.join(CLASSES)} must be {rule}"
        )
    return LabelledRows(records, list(CLASSES), printed_lists_note(f"{field}={path}", printed))


def turns(value: Any) -> str:
    """The turns of one column as one text, a blank line between them.

    A null turn is an empty text, a turn that is no string its JSON. A value that is no list, neither as JSON nor as
    Python prints it, is one turn.
    """
    found = as_list(value)
    parts = [as_text(turn) for turn in ([value] if found is None else found)]
    return "\n\n".join(parts) if any(parts) else ""


def probabilities(values: list[Any]) -> tuple[float, ...] | None:
    """The values as probabilities with a sum of exactly 1; None if they are none."""
    numbers = [_number(value) for value in values]
    total = sum(numbers)
    if not abs(total - 1) <= _TOLERANCE or min(numbers) < 0:
        return None
    return tuple(number / total for number in numbers)


def _refuse_arrays(row: dict[str, Any], where: str) -> None:
    for name in TEXTS:
        if isinstance(row[name], str) and as_list(row[name]) is None and is_numpy_array(row[name]):
            raise DataError(
                f"{where}: {name!r} is an array as numpy prints it, without commas between the turns; "
                "save the column as JSON lists"
            )


def _record(number: int, numbered: Row, label: tuple[float, ...] | None, where: str) -> Record:
    _, row = numbered
    prompt, a, b = (turns(row[name]) for name in TEXTS)
    return Record(row_id(numbered, "id" if "id" in row else None, number, where), (prompt, a, b), label, group=prompt)


def one_hot(row: dict[str, Any]) -> tuple[float, ...] | None:
    """The three winner columns of a row; None unless they are one 1 and two 0."""
    numbers = tuple(_number(row[name]) for name in CLASSES)
    return numbers if sorted(numbers) == [0.0, 0.0, 1.0] else None


def _number(value: Any) -> float:
    try:
        return float(_WORDS.get(value.strip().lower(), value) if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
