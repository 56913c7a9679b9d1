"""The difference of two scores on the same items, with its 95 % interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from danube_sweep.benchmark.score_task import Score

_NORMAL: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_DRAWS, _SEED = 2000, 0
Formula = Callable[[np.ndarray], float]
"""A metric from its items' numbers [N, V]."""


@dataclass(frozen=True)
class Change:
    """A metric after minus before; `interval` pairs the items, and is None where the items are not the same."""

    value: float
    interval: tuple[float, float] | None


def change(before: Score, after: Score) -> Change:
    """The change of a task's metric. A mean has the interval of its paired differences; a perplexity, a bootstrap's.

    No interval for metrics with another formula (mcc, f1 and the like).
    """
    apart = after.value - before.value
    if before.prompts != after.prompts or not (before.pooled and after.pooled) or len(before.scores) < 2:
        return Change(apart, None)
    if len({len(item) for item in (*before.scores, *after.scores)}) != 1 or not before.scores[0]:
        return Change(apart, None)
    old_NV, new_NV = np.array(before.scores), np.array(after.scores)
    if old_NV.shape[1] == 1 and _is(_mean, old_NV, before) and _is(_mean, new_NV, after):
        paired_N = (new_NV - old_NV)[:, 0]
        half = _NORMAL * float(paired_N.std(ddof=1)) / len(paired_N) ** 0.5
        return Change(apart, (apart - half, apart + half))
    formula = _PERPLEXITIES.get((before.metric.partition(",")[0], old_NV.shape[1]))
    if formula is None or not (_is(formula, old_NV, before) and _is(formula, new_NV, after)):
        return Change(apart, None)
    return Change(apart, _bootstrap(formula, old_NV, new_NV))


def _bootstrap(formula: Formula, old_NV: np.ndarray, new_NV: np.ndarray) -> tuple[float, float]:
    drawn_DN = np.random.default_rng(_SEED).integers(len(old_NV), size=(_DRAWS, len(old_NV)))
    apart_D = np.array([formula(new_NV[rows_N]) - formula(old_NV[rows_N]) for rows_N in drawn_DN])
    low, high = np.quantile(apart_D, [0.025, 0.975])
    return float(low), float(high)


def _is(formula: Formula, items_NV: np.ndarray, score: Score) -> bool:
    return bool(np.isclose(formula(items_NV), score.value, rtol=1e-6))


def _mean(items_N1: np.ndarray) -> float:
    return float(items_N1.mean())


def _of_logs(logs_N1: np.ndarray) -> float:
    return float(np.exp(-logs_N1.mean()))


def _per_unit(logs_and_units_N2: np.ndarray) -> float:
    log, units = logs_and_units_N2.sum(axis=0)
    return -float(log) / float(units)


_PERPLEXITIES: Final[dict[tuple[str, int], Formula]] = {
    ("perplexity", 1): _of_logs,
    ("word_perplexity", 2): lambda items_N2: float(np.exp(_per_unit(items_N2))),
    ("byte_perplexity", 2): lambda items_N2: float(np.exp(_per_unit(items_N2))),
    ("bits_per_byte", 2): lambda items_N2: _per_unit(items_N2) / float(np.log(2)),
}
"""By lm-eval's name of the metric and the numbers that an item has."""
