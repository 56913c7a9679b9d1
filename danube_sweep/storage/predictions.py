"""predictions.parquet: the answers of a run to its validation examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, parquet

from danube_sweep.config.schema import Target
from danube_sweep.storage.files import whole_file

Floats = NDArray[np.float64]

ID, GROUP, LOSS, WEIGHT, LABEL, PREDICTION = "id", "group", "loss", "weight", "label", "prediction"
_PROBABILITY, _ONE_LABEL = "probability_", "label_"

DAMAGED = (OSError, KeyError, ValueError, pa.ArrowException)
"""The errors of a missing or damaged file, when it is read or asked for a column."""


@dataclass(frozen=True)
class Answered:
    """n examples with a trial's answers. In language modelling there are no answers."""

    ids: Sequence[str]
    losses_N: NDArray[Any]
    labels_NC: NDArray[Any]
    """[n, classes]; [n, 1] for numbers, and for words by the place of their class."""
    weights_N: NDArray[Any]
    answers_NA: NDArray[Any] | None
    groups_N: NDArray[np.int64] | None = None
    """A code of each example's group (prompt, text, document); None where every example is its own."""


@dataclass(frozen=True)
class Classified:
    """The answers of a classifier to examples of one class each."""

    classes: list[str]
    labels_N: NDArray[np.int64]
    """The place of each example's class in `classes`."""
    probabilities_NC: Floats


def write(file: Path, target: Target, classes: Sequence[str], answered: Answered) -> None:
    """Writes the file, whole or not at all. Raises DiskError.

    Every file has `id`, `loss` and, for rows that have one, `group`: examples of one prompt, text or document share its
    code. The other columns depend on the target:

        one class        label, a probability_ per class
        several classes  a label_ and a probability_ per class
        a number         label, prediction
        language model   weight: the predicted tokens of a row
    """
    groups = {} if answered.groups_N is None else {GROUP: answered.groups_N}
    columns = {ID: answered.ids, **groups, LOSS: answered.losses_N, **_answers(target, classes, answered)}
    with whole_file(file, "free some space") as temporary:
        parquet.write_table(pa.table(columns), temporary)


def _answers(target: Target, classes: Sequence[str], answered: Answered) -> dict[str, Any]:
    labels_NC, answers_NA = answered.labels_NC, answered.answers_NA
    if answers_NA is None:
        return {WEIGHT: answered.weights_N}
    if target is Target.number:
        return {LABEL: labels_NC[:, 0], PREDICTION: answers_NA[:, 0]}
    probabilities = {probability(name): answers_NA[:, place] for place, name in enumerate(classes)}
    if target is Target.many:
        return {f"{_ONE_LABEL}{name}": labels_NC[:, place] for place, name in enumerate(classes)} | probabilities
    places = labels_NC[:, 0].astype(int) if target is Target.words else labels_NC.argmax(axis=1)
    return {LABEL: [classes[place] for place in places], **probabilities}


def read(file: Path, wanted: Callable[[str], bool] = lambda _column: True) -> "pa.Table":
    """The wanted columns of the file. Raises an error of DAMAGED."""
    with parquet.ParquetFile(file) as opened:  # read_table's ways around data sets take ten times as long
        return opened.read([name for name in opened.schema_arrow.names if wanted(name)], use_threads=False)


def columns(file: Path) -> list[str]:
    """The names of the file's columns. Raises an error of DAMAGED."""
    with parquet.ParquetFile(file) as opened:
        return list(opened.schema_arrow.names)


def is_answer(column: str) -> bool:
    """Whether a column holds answers."""
    return column == PREDICTION or column.startswith(_PROBABILITY)


def is_truth(column: str) -> bool:
    """Whether a column identifies the example or holds its label."""
    return column in (ID, LABEL) or column.startswith(_ONE_LABEL)


def probability(name: str) -> str:
    """The column of a class."""
    return f"{_PROBABILITY}{name}"


def class_names(columns: Sequence[str]) -> list[str]:
    """The classes that columns have probabilities of."""
    return [name.removeprefix(_PROBABILITY) for name in columns if name.startswith(_PROBABILITY)]


def several(table: "pa.Table") -> tuple[Floats, Floats] | None:
    """Labels and probabilities [n, classes] of several classes an example; None for any other target."""
    classes, names = class_names(table.column_names), table.column_names
    if not classes or not all(f"{_ONE_LABEL}{name}" in names for name in classes):
        return None
    columns = ([f"{_ONE_LABEL}{name}" for name in classes], [probability(name) for name in classes])
    labels_NC, probabilities_NC = (np.stack([floats(table, one) for one in some], axis=1) for some in columns)
    return labels_NC, probabilities_NC


def floats(table: "pa.Table", column: str) -> Floats:
    """A column of numbers."""
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def classified(table: "pa.Table") -> Classified | None:
    """The answers of a classifier; None for a number, for several classes an example and in language modelling.

    Raises ValueError for a label that is no class.
    """
    classes = class_names(table.column_names)
    if LABEL not in table.column_names or not classes:
        return None
    places = compute.index_in(table[LABEL].cast(pa.string()), value_set=pa.array(classes, pa.string()))
    if places.null_count:
        raise ValueError("a label that is no class")
    probabilities_NC = np.stack([floats(table, probability(name)) for name in classes], axis=1)
    return Classified(classes, places.to_numpy().astype(np.int64), probabilities_NC)
