"""The difference of two scores on the same items, with its 95 % interval."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from danube_sweep.benchmark.score_task import Score

_NORMAL: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_DRAWS, _SEED = 2000, 0


@dataclass(frozen=True)
class Change:
    """A metric after minus before; `interval` pairs the items, and is None where the items are not the same."""

    value: float
    interval: tuple[float, float] | None


def change(before: Score, after: Score) -> Change:
    """The change of a task's metric. A mean has the interval of its paired differences; a perplexity, a bootstrap's."""
    apart = after.value - before.value
    if before.prompts != after.prompts or not (before.pooled and after.pooled) or len(before.scores) < 2:
        return Change(apart, None)
    if len({len(item) for item in (*before.scores, *after.scores)}) != 1 or not before.scores[0]:
        return Change(apart, None)
    old_NV, new_NV = np.array(before.scores), np.array(after.scores)
    if old_NV.shape[1] == 1:
        paired_N = (new_NV - old_NV)[:, 0]
        half = _NORMAL * float(paired_N.std(ddof=1)) / len(paired_N) ** 0.5
        return Change(apart, (apart - half, apart + half))
    return Change(apart, _bootstrap(before, old_NV, new_NV))


def _bootstrap(score: Score, old_NV: np.ndarray, new_NV: np.ndarray) -> tuple[float, float] | None:
    if old_NV.shape[1] != 2 or not np.isclose(_perplexity(score.metric, old_NV.sum(axis=0)), score.value, rtol=1e-6):
        return None  # another formula than one of the perplexities
    drawn_DN = np.random.default_rng(_SEED).integers(len(old_NV), size=(_DRAWS, len(old_NV)))
    apart_D = np.array(
        [
            _perplexity(score.metric, new_NV[rows_N].sum(axis=0))
            - _perplexity(score.metric, old_NV[rows_N].sum(axis=0))
            for rows_N in drawn_DN
        ]
    )
    low, high = np.quantile(apart_D, [0.025, 0.975])
    return float(low), float(high)


def _perplexity(metric: str, sums: np.ndarray) -> float:
    per_unit = -float(sums[0]) / float(sums[1])
    return per_unit / float(np.log(2)) if metric.startswith("bits_per_byte") else float(np.exp(per_unit))
