"""The validation predictions of all folds as one part: every row once, in the order of the data file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from danube_sweep.data import Record
from danube_sweep.errors import CheckpointError, DataError
from danube_sweep.metrics import classification_metrics
from danube_sweep.trial import RunFolder

Floats = NDArray[np.float64]

PROBABILITY = "probability_"


@dataclass(frozen=True)
class Predictions:
    """What predictions.parquet holds of n rows."""

    ids: list[str]
    losses_N: Floats
    labels: list[str] | None
    """None in language modelling, as are the probabilities."""
    weights_N: Floats
    probabilities_NC: Floats | None
    classes: list[str]


def read_predictions(file: Path) -> Predictions:
    """Reads the predictions of one run. Raises CheckpointError if they are missing or damaged."""
    try:
        table = parquet.read_table(file)
        names = table.column_names
        classes = [name for name in names if name.startswith(PROBABILITY)]
        return Predictions(
            table["id"].cast(pa.string()).to_pylist(),
            _floats(table, "loss"),
            table["label"].to_pylist() if "label" in names else None,
            _floats(table, "weight") if "weight" in names else np.ones(table.num_rows),
            np.stack([_floats(table, name) for name in classes], axis=1) if classes else None,
            [name.removeprefix(PROBABILITY) for name in classes],
        )
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise CheckpointError(f"{file} is missing or damaged; run the trial again") from error


def _floats(table: "pa.Table", name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def join(seeds: Sequence[Sequence[RunFolder]], records: Sequence[Record], *, whole: bool) -> Predictions:
    """The predictions of every fold, averaged over the seeds, in the order of `records`.

    `whole`: every record must have been predicted. Raises CheckpointError for files that are damaged or of other rows,
    DataError for ids that do not tell rows apart.
    """
    averaged = [_averaged([read_predictions(run.predictions) for run in fold]) for fold in zip(*seeds, strict=True)]
    joined = _concatenated(averaged)
    order = _order(joined.ids, records, whole=whole)
    return Predictions(
        [joined.ids[row] for row in order],
        joined.losses_N[order],
        None if joined.labels is None else [joined.labels[row] for row in order],
        joined.weights_N[order],
        None if joined.probabilities_NC is None else joined.probabilities_NC[order],
        joined.classes,
    )


def _averaged(parts: Sequence[Predictions]) -> Predictions:
    first = parts[0]
    if any((part.ids, part.classes) != (first.ids, first.classes) for part in parts):
        raise CheckpointError("two seeds of a fold have other validation rows or classes; run them again")
    probabilities = [part.probabilities_NC for part in parts if part.probabilities_NC is not None]
    return Predictions(
        first.ids,
        np.mean([part.losses_N for part in parts], axis=0),
        first.labels,
        first.weights_N,
        np.mean(probabilities, axis=0) if probabilities else None,
        first.classes,
    )


def _concatenated(parts: Sequence[Predictions]) -> Predictions:
    first = parts[0]
    if any(part.classes != first.classes for part in parts):
        raise CheckpointError("the folds have other classes; run them again over the same data")
    probabilities = [part.probabilities_NC for part in parts if part.probabilities_NC is not None]
    return Predictions(
        [name for part in parts for name in part.ids],
        np.concatenate([part.losses_N for part in parts]),
        None if first.labels is None else [name for part in parts for name in part.labels or []],
        np.concatenate([part.weights_N for part in parts]),
        np.concatenate(probabilities) if probabilities else None,
        first.classes,
    )


def _order(ids: Sequence[str], records: Sequence[Record], *, whole: bool) -> list[int]:
    """Where each of the sorted rows stands in `ids`; a piece of a text, `<id>:<number>`, stands with its text."""
    places = {record.id: place for place, record in enumerate(records)}
    for names in (ids, [record.id for record in records]):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(f"data: the id {name!r} is there {count} times; give ids that tell the rows apart, or none")
    keys = []
    for name in ids:
        text, _, piece = name.rpartition(":")
        if name not in places and not (text in places and piece.isdecimal()):
            raise CheckpointError(f"the predictions have a row {name!r} that the data have not; run the trials again")
        keys.append((places[name], 0) if name in places else (places[text], int(piece)))
    if whole and len(ids) < len(records):
        lost = min(set(places) - set(ids), key=places.__getitem__, default="")
        raise CheckpointError(f"no fold has predicted the row {lost!r}; run the trials again")
    return sorted(range(len(ids)), key=keys.__getitem__)


def score(found: Predictions, records: Sequence[Record]) -> dict[str, float]:
    """The metrics of the head over all rows, against the labels of the records."""
    if found.probabilities_NC is None:
        mean = float(np.average(found.losses_N, weights=found.weights_N))
        return {"log_loss": mean, "perplexity": float(np.exp(mean))}
    labels = {record.id: record.label for record in records}
    labels_NC = torch.tensor([labels[name] for name in found.ids], dtype=torch.float32)
    return classification_metrics(torch.from_numpy(found.probabilities_NC), labels_NC)
