"""A trial's answers to its validation examples, read from predictions.parquet and put into one order.

Axes: N examples, C classes, G groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import GROUP, ID, LABEL, LOSS, PREDICTION, WEIGHT, Floats, floats

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Validation examples with a trial's answers. A column that the file lacks is None."""

    ids: Any
    groups_N: Codes | None
    losses_N: Floats
    weights_N: Floats
    classes: list[str]
    labels_N: Codes | None
    """The place of each example's class."""
    labels_NC: Floats | None
    """For several classes an example: 1 where one is there."""
    wanted_N: Floats | None
    """For numbers."""
    probabilities_NC: Floats | None
    numbers_N: Floats | None

    @property
    def places_N(self) -> Codes:
        """Which of its distinct groups each example is of; without groups each is its own."""
        if self.groups_N is None:
            return np.arange(len(self.losses_N))
        return np.unique(self.groups_N, return_inverse=True)[1].astype(np.int64)

    @property
    def starts_N(self) -> NDArray[np.bool_]:
        """Of words, whether one is the first of its text, by their ids `<text>:<number>`."""
        return np.asarray(compute.ends_with(self.ids, ":0").to_numpy(zero_copy_only=False), dtype=np.bool_)


def read_answers(file: Path, *, losses_alone: bool = False) -> Answers | str:
    """The answers in a file, or a few words on why there are none. `losses_alone` skips labels and answers."""

    def wanted(column: str) -> bool:
        return not losses_alone or column in (ID, GROUP, LOSS, WEIGHT)

    return answers_read(lambda: predictions.read(file, wanted))


def answers_read(read: Callable[[], pa.Table]) -> Answers | str:
    """The answers in the table that `read` returns, or a few words on why there are none."""
    try:
        return answers_of(read())
    except FileNotFoundError:
        return "no predictions"
    except predictions.DAMAGED:
        return "damaged predictions"


def answers_of(table: "pa.Table") -> Answers | str:
    """The answers in a table, or a few words on why there are none. Raises an error of DAMAGED."""
    names = table.column_names
    losses_N = floats(table, LOSS)
    weights_N = floats(table, WEIGHT) if WEIGHT in names else np.ones(len(losses_N))
    if not np.isfinite(losses_N).all() or not weights_N.sum() > 0:
        return "losses that are no finite numbers"
    classified, several = predictions.classified(table), predictions.several(table)
    number = PREDICTION in names
    return Answers(
        ids=table[ID].cast(pa.large_string()).combine_chunks(),
        groups_N=table[GROUP].to_numpy().astype(np.int64) if GROUP in names else None,
        losses_N=losses_N,
        weights_N=weights_N,
        classes=predictions.class_names(names),
        labels_N=None if classified is None else classified.labels_N,
        labels_NC=None if several is None else several[0],
        wanted_N=floats(table, LABEL) if number else None,
        probabilities_NC=_probabilities(classified, several),
        numbers_N=floats(table, PREDICTION) if number else None,
    )


def _probabilities(classified: predictions.Classified | None, several: tuple[Floats, Floats] | None) -> Floats | None:
    if several is not None:
        return several[1]
    return None if classified is None else classified.probabilities_NC


def aligned(found: Answers, like: Answers) -> Answers | str:
    """The answers in the order of `like`, or why these are of other examples."""
    if not found.ids.equals(like.ids):
        order_N = _order(found.ids, like.ids)
        if order_N is None:
            return "other validation rows than the best row"
        found = _reordered(found, order_N, like.ids)
    if not np.array_equal(found.weights_N, like.weights_N):
        return "other token counts than the best row"
    return found


def joined(first: Answers, second: Answers) -> Answers:
    """The examples of two folds, the second's after the first's; no group is in both. Raises ValueError."""
    if first.classes != second.classes:
        raise ValueError("two folds have other classes")
    together: dict[str, Any] = {
        name: np.concatenate([value, getattr(second, name)])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray) and getattr(second, name) is not None
    }
    if first.groups_N is not None and second.groups_N is not None:
        apart_N = second.groups_N - second.groups_N.min(initial=0) + first.groups_N.max(initial=-1) + 1
        together["groups_N"] = np.concatenate([first.groups_N, apart_N])
    return replace(first, ids=pa.concat_arrays([first.ids, second.ids]), **together)


def _reordered(found: Answers, order_N: Codes, ids: Any) -> Answers:
    arrays = {name: value for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    reordered: dict[str, Any] = {name: value[order_N] for name, value in arrays.items()}
    return replace(found, ids=ids, **reordered)


def _order(ids: Any, like: Any) -> Codes | None:
    """Where each id of `like` stands in `ids`; None if they are not the same set, or an id is there twice."""
    if len(ids) != len(like) or compute.count_distinct(ids, mode="all").as_py() != len(ids):
        return None
    mine, theirs = (compute.sort_indices(one) for one in (ids, like))
    if not ids.take(mine).equals(like.take(theirs)):
        return None
    order = np.empty(len(ids), dtype=np.int64)
    order[theirs.to_numpy()] = mine.to_numpy()
    return order


def answered_alike(like: Answers, prior: Sequence[float]) -> Answers | None:
    """The same answer `prior` to every example: a probability a class, or a number; None where it does not fit."""
    one_C = np.array(prior, dtype=np.float64)
    examples = len(like.losses_N)
    if like.wanted_N is not None and len(one_C) == 1:
        losses_N = np.square(like.wanted_N - one_C[0])
        return replace(like, losses_N=losses_N, numbers_N=np.full(examples, one_C[0]))
    if len(one_C) != len(like.classes) or not len(one_C) or not ((one_C > 0) & (one_C < 1)).all():
        return None
    alike_NC = np.broadcast_to(one_C, (examples, len(one_C)))
    if like.labels_N is not None:
        return replace(like, losses_N=-np.log(one_C)[like.labels_N], probabilities_NC=alike_NC)
    if like.labels_NC is None:
        return None
    losses_NC = -(like.labels_NC * np.log(one_C) + (1 - like.labels_NC) * np.log1p(-one_C))
    return replace(like, losses_N=losses_NC.mean(axis=1), probabilities_NC=alike_NC)
