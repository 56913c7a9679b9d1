"""What a row of the ranking is worth on each validation example, from its trials' predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import ID, LABEL, LOSS, WEIGHT, Floats, floats, is_answer

LOSSES = ("validation/log_loss", "validation/mse")
PAIRED = (*LOSSES, "validation/accuracy")
"""The metrics that are a mean over examples; only these have an interval of their own."""


@dataclass(frozen=True)
class Examples:
    """`values` and `weights` of n examples; the metric is the weighted mean."""

    ids: Any
    values: Floats
    weights: Floats


def read_examples(parts: Sequence[Sequence[Path]], metric: str, like: Examples | None = None) -> Examples | str:
    """The examples' values for a metric of PAIRED, in the order of `like`.

    Each part is a fold's predictions files, one a seed, and is averaged over them; without folds there is one part.
    Without `like` the first files give the order. Returns in a few words why they cannot be compared, if so.
    """
    found = []
    for files in parts:
        part = _averaged(files, metric)
        if isinstance(part, str):
            return part
        found.append(part)
    joined = _joined(found)
    return joined if like is None else _aligned(joined, like)


def _averaged(files: Sequence[Path], metric: str) -> Examples | str:
    first: Examples | None = None
    values = []
    for file in files:
        found = _read(file, metric)
        if isinstance(found, str):
            return found
        first = first or found
        aligned = _aligned(found, first)
        if isinstance(aligned, str):
            return aligned
        values.append(aligned.values)
    assert first is not None
    return replace(first, values=np.mean(values, axis=0))


def _joined(parts: Sequence[Examples]) -> Examples:
    ids = pa.concat_arrays([part.ids for part in parts])
    values, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "weights"))
    return Examples(ids, values, weights)


def _read(file: Path, metric: str) -> Examples | str:
    def wanted(column: str) -> bool:
        return column in (ID, WEIGHT) or (column == LOSS if metric in LOSSES else column == LABEL or is_answer(column))

    try:
        table = predictions.read(file, wanted)
        ids = table[ID].cast(pa.large_string()).combine_chunks()
        values = floats(table, LOSS) if metric in LOSSES else _correct(table)
        weights = floats(table, WEIGHT) if WEIGHT in table.column_names else np.ones(len(values))
    except FileNotFoundError:
        return "no predictions"
    except predictions.DAMAGED:
        return "damaged predictions"
    if not np.isfinite(values).all() or not weights.sum() > 0:
        return "losses that are no finite numbers"
    return Examples(ids, values, weights)


def _correct(table: Any) -> Floats:
    classes = predictions.class_names(table.column_names)
    probabilities_NC = np.stack([floats(table, predictions.probability(name)) for name in classes], axis=1)
    names = np.array(classes, dtype=object)
    labels = table[LABEL].cast(pa.large_string()).to_numpy()
    return np.asarray(names[probabilities_NC.argmax(axis=1)] == labels, dtype=np.float64)


def _aligned(found: Examples, like: Examples) -> Examples | str:
    if not found.ids.equals(like.ids):
        order = _order(found.ids, like.ids)
        if order is None:
            return "other validation rows than the best row"
        found = Examples(like.ids, found.values[order], found.weights[order])
    return found if np.array_equal(found.weights, like.weights) else "other token counts than the best row"


def _order(ids: Any, like: Any) -> NDArray[np.int64] | None:
    """Where each id of `like` stands in `ids`; None if they are not the same set, or an id is there twice."""
    if len(ids) != len(like) or compute.count_distinct(ids, mode="all").as_py() != len(ids):
        return None
    mine, theirs = (compute.sort_indices(one) for one in (ids, like))
    if not ids.take(mine).equals(like.take(theirs)):
        return None
    order = np.empty(len(ids), dtype=np.int64)
    order[theirs.to_numpy()] = mine.to_numpy()
    return order
