"""How much the metric of one configuration moves when its training is repeated, pooled over a sweep's rows."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from danube_sweep.storage.predictions import Floats

Cell = tuple[int | None, int | None]
"""Seed and fold of a trial."""

_EFFICIENCY = 0.4
"""Of a median of variances against their mean: for rows of two seeds; those of more have a little more."""

_MEDIAN_EFFICIENCY = 0.37
"""Of the median absolute deviation of normal numbers against their standard deviation (Rousseeuw and Croux 1993)."""

_FEW = 5
"""Rows below which a median absolute deviation means little."""

_NOISIER = 2.0
"""By how much the better rows' deviation must be larger to count alone: chance seldom makes it so."""


@dataclass(frozen=True)
class TrainingNoise:
    """The standard deviation of a single trial around its row's mean, and how well it is known."""

    sd: float
    freedom: float
    """Degrees of freedom of a chi-squared estimate as sure as this one."""
    over: str
    """`seeds`, or `folds` where no row has a second seed, or `rows` where nothing was repeated."""
    rows: int
    """How many it is pooled over."""
    resampled: float = 0.0
    """The part of the variance around a row's mean that resampling validation rows covers already. Trainings also
    differ on single rows, and that part is not counted twice."""

    def draws(self, generator: np.random.Generator, resamples: int) -> Floats:
        """Deviations beyond the resamples', as likely as the estimate is sure: normal draws of them have wide tails."""
        variances_B = self.sd**2 * self.freedom / generator.chisquare(self.freedom, resamples)
        return np.asarray(np.sqrt(np.maximum(variances_B - self.resampled, 0.0)))


def training_noise(rows: Sequence[Mapping[Cell, float]]) -> TrainingNoise | None:
    """The noise of trials of a sweep; None if nothing was repeated. `rows`: metric by seed and fold, best row first.

    Seeds of one row and fold differ by noise alone. Without a second seed anywhere, folds are used: the residuals after
    the means of rows and of folds are subtracted. These contain the rows' own reaction to a fold's validation rows too,
    so the estimate is rather too large.

    Each row has a variance, and the pooled one is their median. A row that diverged (a learning rate too high) has
    other noise than the rows worth a comparison, and its variance would hide every difference between these. The better
    half of the rows is used alone if its deviation is more than twice the pooled one: the others learned nothing, again
    and again.
    """
    every, better = _pooled(rows), _pooled(rows[: (len(rows) + 1) // 2])
    if every is not None and better is not None and better.over == every.over and better.sd > _NOISIER * every.sd:
        return better
    return every


def _pooled(rows: Sequence[Mapping[Cell, float]]) -> TrainingNoise | None:
    found, over = _repeats(rows)
    if not found:
        return None
    variances, freedoms = (np.array(values, dtype=np.float64) for values in zip(*found, strict=True))
    if len(found) < 3:  # of two a median is the mean
        return TrainingNoise(sqrt(np.average(variances, weights=freedoms)), float(freedoms.sum()), over, len(found))
    pooled = _weighted_median(variances / _median_share(freedoms), freedoms)
    return TrainingNoise(sqrt(pooled), max(1.0, _EFFICIENCY * float(freedoms.sum())), over, len(found))


def spread_between_rows(values_R: Floats, away_BR: Floats) -> TrainingNoise:
    """A substitute for training noise among rows of single trials: the robust spread of the rows themselves.

    For equal rows that spread is the noise. For others it contains their true differences too and is rather too large,
    so a row is told from the best only if it stands out from most others. `away_BR`: the distance of each row's metric
    from its value on all rows, in each resample of the validation rows. Needs at least two rows.
    """
    rows = len(values_R)
    freedom = (rows - 1) * (_MEDIAN_EFFICIENCY if rows >= _FEW else 1.0)
    resampled = float(np.mean(_spread(away_BR) ** 2))
    return TrainingNoise(float(_spread(values_R)), freedom, "rows", rows, resampled)


def resampled_variance(rows: Sequence[Mapping[Cell, Floats]], over: str) -> float:
    """The variance of a trial around its row's mean over resampled validation rows: the median row's.

    `rows`: by seed and fold, how far the metric is from itself in each resample. `over`: the repeats that the noise was
    estimated from. 0 where these rows have none of that kind: then nothing is taken off the noise.
    """
    found, repeats = _repeats(rows)
    if not found or repeats != over:
        return 0.0
    variances, freedoms = (np.array(values, dtype=np.float64) for values in zip(*found, strict=True))
    return _weighted_median(variances, freedoms)


def _repeats(rows: Sequence[Mapping[Cell, Any]]) -> tuple[list[tuple[float, float]], str]:
    """A variance with its degrees of freedom for every row that has repeats, and the name of the repeats.

    For draws, the variance is the mean over them.
    """
    found = [one for row in rows if (one := _within(row)) is not None]
    return (found, "seeds") if found else (_between_folds(rows), "folds")


def _within(row: Mapping[Cell, Any]) -> tuple[float, float] | None:
    """A row's variance over the seeds of each fold, and its degrees of freedom."""
    by_fold: dict[Hashable, list[Any]] = {}
    for (_, fold), value in row.items():
        by_fold.setdefault(fold, []).append(value)
    several = [values for values in by_fold.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    return sum(float(np.var(values, axis=0).mean()) * len(values) for values in several) / freedom, freedom


def _between_folds(rows: Sequence[Mapping[Cell, Any]]) -> list[tuple[float, float]]:
    """For each row that has all folds: the variance that neither the row's mean nor the folds' effects explain.

    A fold's effect is the median over the rows, or one row that diverged would give its own noise to all. The median
    moves more than a mean would: of equal rows, variances are up to a sixth too large.
    """
    folds = sorted({fold for row in rows for _, fold in row if fold is not None})
    whole = [row for row in rows if len(row) == len(folds) and {fold for _, fold in row} == set(folds)]
    if len(folds) < 2 or len(whole) < 2:
        return []
    values_RF = np.array([[value for _, value in sorted(row.items(), key=_by_fold)] for row in whole])
    left_RF = values_RF - values_RF.mean(axis=1, keepdims=True)
    left_RF = left_RF - np.median(left_RF, axis=0)
    left_RF = left_RF - left_RF.mean(axis=1, keepdims=True)
    freedom = (len(whole) - 1) * (len(folds) - 1) / len(whole)
    return [(float(np.square(left_F).sum(axis=0).mean() / freedom), freedom) for left_F in left_RF]


def _by_fold(item: tuple[Cell, Any]) -> int:
    return item[0][1] or 0


def _spread(values_R: Floats) -> Floats:
    """A standard deviation over the last axis that single rows cannot move, for normal numbers without bias."""
    rows = values_R.shape[-1]
    if rows < _FEW:
        return np.asarray(values_R.std(axis=-1, ddof=1))
    away_R = np.abs(values_R - np.median(values_R, axis=-1, keepdims=True))
    return np.asarray(np.median(away_R, axis=-1) * 1.4826 * rows / (rows - 0.8))


def _median_share(freedom: Floats) -> Floats:
    """The median of a chi-squared variable over its mean (Wilson and Hilferty 1931)."""
    return np.asarray((1 - 2 / (9 * freedom)) ** 3)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(reached, 0.5))
    last = len(values) - 1
    if np.isclose(reached[place], 0.5) and place < last:
        return float(values[order[[place, place + 1]]].mean())
    return float(values[order[min(place, last)]])
