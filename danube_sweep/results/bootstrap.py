"""How sure a mean over validation examples is, or the difference of two: a bootstrap over the examples."""

import numpy as np

from danube_sweep.storage.predictions import Floats

RESAMPLES = 2000
LEVEL = 0.95
_NUMBERS_AT_ONCE = 500_000


def paired_intervals(differences_RN: Floats, weights_N: Floats, *, seed: int = 0) -> Floats:
    """95 % percentile intervals [R, 2] of the weighted mean of each row's per-example differences.

    All rows see the same 2000 resamples, so equal rows get equal intervals; the same seed gives the same numbers.
    It covers the choice of the examples, not the choice of the seeds. Efron & Tibshirani 1993, chapter 13.
    """
    weighted_NR = (differences_RN * weights_N).T.copy()
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, _NUMBERS_AT_ONCE // len(weights_N))
    estimates = []
    for first in range(0, RESAMPLES, rows_at_once):
        counts_SN = _counts(generator, min(rows_at_once, RESAMPLES - first), len(weights_N))
        total_S = counts_SN @ weights_N
        # A resample of nothing but examples without weight says nothing.
        estimates.append((counts_SN @ weighted_NR)[total_S > 0] / total_S[total_S > 0, None])
    tail = (1 - LEVEL) / 2
    return np.asarray(np.quantile(np.concatenate(estimates), [tail, 1 - tail], axis=0).T)


def _counts(generator: np.random.Generator, samples: int, examples: int) -> Floats:
    """How often each example is in each of some resamples: [samples, examples]."""
    drawn = generator.integers(0, examples, size=(samples, examples))
    drawn += np.arange(samples)[:, None] * examples
    return np.bincount(drawn.ravel(), minlength=samples * examples).reshape(samples, examples).astype(np.float64)
