"""The metrics of decisions, each row with a weight. Axes: N examples, C classes, K grades."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from danube_sweep.results.decisions.rules import Decisions
from danube_sweep.storage.predictions import Floats


@dataclass(frozen=True)
class Metric:
    """`macro_f`, `micro_f` or `token_f` with a beta, or `qwk`."""

    family: str
    beta: float = 1.0

    @property
    def name(self) -> str:
        return self.family if self.family == "qwk" else f"{self.family}{self.beta:g}"


def metric_from(name: str) -> Metric | None:
    """The metric of a name like `macro_f1`, `token_f0.5` or `qwk`; None for any other."""
    if name == "qwk":
        return Metric("qwk")
    found = re.fullmatch(r"(macro_f|micro_f|token_f)(\d+(?:\.\d+)?)", name)
    if found is None or not 0 < float(found[2]) <= 100:
        return None
    return Metric(found[1], float(found[2]))


@dataclass(frozen=True)
class Truth:
    """The right decisions, in the form of decisions, and the number of classes or grades."""

    wanted: Decisions
    classes: int
    outside: int = -1
    """For words, the place of O."""
    lowest: int = 0
    """For numbers, the grade at place 0."""


def score(metric: Metric, found: Decisions, truth: Truth, weights_N: Floats | None = None) -> float:
    """The metric of some decisions; rows count by their weights.

    A class that no row has or gets has no F-measure. It is left out of a macro mean, and counts 0 where examples have
    any number of classes, as in scikit-learn. Without anything to measure the metric is 0.
    """
    weights_N = np.ones(len(found)) if weights_N is None else weights_N
    sums = weights_N @ parts_of(metric, found, truth)
    return float(metric_of(metric, sums, weights_N.sum(), many=found.ndim == 2))


def f_measure(right: ArrayLike, said: ArrayLike, true: ArrayLike, beta: float) -> Floats:
    """F-beta from weights of the rows that are right, that were said to be of a class, and that are; 0 for 0 / 0."""
    below = beta**2 * np.asarray(true, dtype=np.float64) + np.asarray(said, dtype=np.float64)
    return np.asarray((1 + beta**2) * np.asarray(right, dtype=np.float64) / np.where(below > 0, below, 1.0))


def parts_of(metric: Metric, found: Decisions, truth: Truth) -> Floats:
    """Each row's part in the sums that `metric_of` takes: [N, S]."""
    if metric.family == "qwk":
        said_N, true_N = found.astype(np.float64), truth.wanted.astype(np.float64)
        return np.stack([np.square(said_N - true_N), said_N, true_N, said_N**2 + true_N**2], axis=1)
    said_NC, true_NC = (one if one.ndim == 2 else one[:, None] == np.arange(truth.classes)
                        for one in (found, truth.wanted))  # fmt: skip
    parts = [said_NC & true_NC, said_NC, true_NC]
    if metric.family == "macro_f":
        return np.concatenate(parts, axis=1).astype(np.float64)
    inside_C = np.arange(truth.classes) != truth.outside
    return np.stack([one[:, inside_C].sum(axis=1) for one in parts], axis=1).astype(np.float64)


def metric_of(metric: Metric, sums: Floats, total: Floats, *, many: bool) -> Floats:
    """`score`, from the sums [..., S] of rows whose weights sum to `total` [...]. `many`: any number of classes.

    `qwk` is Cohen's kappa with quadratic weights (Cohen 1968); 0 where chance would agree as well.
    """
    if metric.family == "qwk":
        apart, said, true, squares = np.moveaxis(sums, -1, 0)
        by_chance = squares - 2 * said * true / total
        above_0 = by_chance > 1e-9 * total
        return np.where(above_0, 1.0 - apart / np.where(above_0, by_chance, 1.0), 0.0)
    right, said, true = np.split(sums, 3, axis=-1)
    each = f_measure(right, said, true, metric.beta)
    there = (said + true > 0) | many | (metric.family != "macro_f")
    return np.asarray(np.where(there, each, 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))
