"""Resampled validation rows: whole groups (prompts, texts, documents) are drawn again, and a metric recomputed of them.

Efron and Tibshirani 1993, chapter 13; of groups: Field and Welsh 2007. Axes: B resamples, G groups, T trials, S sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.answers import Codes
from danube_sweep.storage.predictions import Floats

Value = Callable[[Floats, Floats], Floats]

RESAMPLES = 2000
LEVEL = 0.95
FOLDS = 5
"""Of cross-fitting, over groups of rows."""
_NUMBERS_AT_ONCE = 4_000_000
_MOST_MULTIPLICATIONS = 4e11
"""Minutes of a processor core."""


def cross_folds(groups_N: Codes) -> Codes:
    """The part of each row in cross-fitting, by its group: whole groups, at random."""
    return (np.random.default_rng(0).permutation(int(groups_N.max()) + 1) % FOLDS)[groups_N]


@dataclass(frozen=True)
class Fold:
    """Validation rows, and the sums that trials have on each group of them."""

    weights_G: Floats
    sums_TGS: Floats


def fold_of(places_N: Codes, weights_N: Floats, sums: Sequence[Floats]) -> Fold:
    """The rows' sums put together by group; `sums` are [N, S] of each trial."""
    groups = int(places_N.max(initial=-1)) + 1
    weights_G = np.bincount(places_N, weights_N, minlength=groups).astype(np.float64)
    sums_TGS = np.zeros((len(sums), groups, sums[0].shape[1] if sums else 0))
    for trial, sums_NS in enumerate(sums):
        for column in range(sums_NS.shape[1]):
            sums_TGS[trial, :, column] = np.bincount(places_N, sums_NS[:, column], minlength=groups)
    return Fold(weights_G, sums_TGS)


def is_affordable(groups: int, sums: int) -> bool:
    """Whether so many groups can be resampled with so many sums, of all trials, in seconds."""
    return float(groups) * sums * RESAMPLES <= _MOST_MULTIPLICATIONS


def resampled(value: Value, fold: Fold, *, seed: int) -> Floats:
    """The distance of each trial's metric from its value on all rows, in each of 2000 resamples: [B, T].

    `value` gives the metric of sums [..., S] and the weights of a resample [...].

    All trials see the same resamples, so common parts cancel in a difference. The same seed gives the same numbers.
    Distances are multiplied by sqrt(G / (G - 1)), since a bootstrap of few groups is that much too narrow.
    """
    trials, groups, width = fold.sums_TGS.shape
    together = fold.sums_TGS.transpose(1, 0, 2).reshape(groups, trials * width)
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, _NUMBERS_AT_ONCE // max(groups, 1))
    found = []
    for first in range(0, RESAMPLES, rows_at_once):
        counts_BG = _counts(generator, min(rows_at_once, RESAMPLES - first), groups)
        total_B = counts_BG @ fold.weights_G
        kept = total_B > 0  # a resample of nothing but examples without weight has no metric
        sums_BTS = (counts_BG[kept] @ together).reshape(int(kept.sum()), trials, width)
        values_BT = np.zeros((len(kept), trials))
        values_BT[kept] = value(sums_BTS, total_B[kept, None])
        values_BT[~kept] = np.nan
        found.append(values_BT)
    whole_T = value(fold.sums_TGS.sum(axis=1), fold.weights_G.sum())
    away_BT = np.nan_to_num(np.concatenate(found) - whole_T)
    return np.asarray(away_BT * np.sqrt(groups / max(groups - 1, 1)))


def _counts(generator: np.random.Generator, samples: int, groups: int) -> Floats:
    """How often each group is in each of some resamples: [samples, groups]."""
    drawn = generator.integers(0, groups, size=(samples, groups))
    drawn += np.arange(samples)[:, None] * groups
    return np.bincount(drawn.ravel(), minlength=samples * groups).reshape(samples, groups).astype(np.float64)


def paired(differences_N: Floats, groups_N: Codes) -> tuple[float, float]:
    """The mean of differences between two models on the same rows, and half its 95 % interval over whole groups."""
    sums_G, sizes_G = np.bincount(groups_N, differences_N), np.bincount(groups_N).astype(np.float64)
    groups = len(sums_G)
    generator = np.random.default_rng(1)
    drawn_BG = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)
    means_B = (drawn_BG @ sums_G) / (drawn_BG @ sizes_G)
    middle = float(differences_N.mean())
    stretch = np.sqrt(groups / (groups - 1))
    return middle, float(np.quantile(np.abs(means_B - middle), LEVEL) * stretch)
