"""Whether a file of extra rows has labels or probabilities."""

from collections.abc import Sequence

from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.data.read_files import read_rows
from danube_sweep.errors import DataError


def soft_columns(path: str, label_column: str, classes: Sequence[str]) -> bool:
    """Whether the file has a column of probabilities for each class, and not the label column.

    Raises DataError for a file with both, with neither, or without a row.
    """
    where = f"data.extra={path}"
    _, first = next(read_rows(path, [], "data.extra"), (0, {}))
    if not first:
        raise DataError(f"{where}: the file has no rows; give one with rows")
    lost = [name for name in classes if name not in first and neutral_cell(name) not in first]
    labelled = label_column in first and label_column not in classes
    if labelled and not lost:
        raise DataError(f"{where}: it has a label column {label_column!r} and a column per class; remove one of them")
    if not labelled and lost:
        shown = ", ".join(map(repr, lost[:5])) + (", …" if len(lost) > 5 else "")
        raise DataError(
            f"{where}: no labels: it has neither the column {label_column!r} nor all columns of probabilities, one for "
            f"each class; {shown} {'is' if len(lost) == 1 else 'are'} missing"
        )
    return not labelled
