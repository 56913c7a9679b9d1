"""Which rows can be told from the best one: simultaneous intervals over validation rows and training noise.

Axes: B resamples, R rows without the best, K rows with it (first).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.bootstrap import LEVEL
from danube_sweep.results.training_noise import TrainingNoise
from danube_sweep.storage.predictions import Floats

_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Compared:
    """A row against the best one, over the trials of which both have the seed and fold."""

    difference: float
    away_B: Floats
    """How far the difference is from itself in each resample of the validation rows."""
    trials: int
    """How many both have."""
    trained: bool = True
    """Whether training has noise in it; the class prior has none."""


def half_widths(
    compared: Sequence[Compared], noise: TrainingNoise | None, *, best_trained: bool = True, seed: int = 1
) -> list[float]:
    """Half of each difference's 95 % interval; with probability .95 all of them hold, whichever row looked best.

    The two errors add in quadrature: resamples of the validation rows, and normal draws of the training noise, its own
    size drawn as well (so few repeats give Student's wide tails). In each draw the largest standardised difference
    between any two rows is taken, as the best was chosen by looking; its 95 % quantile is the factor (Tukey's range
    by bootstrap). Then rows that are told apart leave, and the others are compared again among themselves: they are
    fewer (step-down: Romano and Wolf 2005; the set that stays is Hansen's model confidence set, 2011).
    """
    if not compared:
        return []
    away_BR = np.stack([one.away_B for one in compared], axis=1)
    differences_R = np.array([one.difference for one in compared])
    away_BK = np.concatenate([np.zeros((len(away_BR), 1)), away_BR], axis=1)
    shares_KK = _noise_shares(compared, best_trained)
    variances_KK = _sampling_variances(away_BK)
    if noise is not None:
        variances_KK += noise.beyond * shares_KK
        away_BK += _noise_draws(noise, compared, len(away_BK), seed, best_trained=best_trained)
    errors_KK = np.sqrt(np.maximum(variances_KK, 0))
    halves_R = np.zeros(len(compared))
    left_R = np.ones(len(compared), dtype=np.bool_)
    while left_R.any():
        family_K = np.append(True, left_R)
        factor = _largest(away_BK[:, family_K], errors_KK[np.ix_(family_K, family_K)])
        halves_R[left_R] = factor * errors_KK[0, 1:][left_R]
        stay_R = left_R & (np.abs(differences_R) <= halves_R)
        if (stay_R == left_R).all():
            break
        left_R = stay_R
    return halves_R.tolist()


def half_width(away_B: Floats, trials: int, noise: TrainingNoise | None, *, seed: int = 2) -> float:
    """Half of the 95 % interval of a row's own metric, the mean of so many trials."""
    if noise is not None:
        generator = np.random.default_rng(seed)
        deviations_B = noise.draws(generator, len(away_B))
        away_B = away_B + deviations_B * generator.normal(size=len(away_B)) / np.sqrt(trials)
    return float(np.quantile(np.abs(away_B), LEVEL))


def _sampling_variances(away_BK: Floats) -> Floats:
    """The variance of the difference between any two rows, over the resamples."""
    products_KK = away_BK.T @ away_BK / len(away_BK)
    own_K = products_KK.diagonal()
    apart_KK = own_K[:, None] + own_K[None, :] - 2 * products_KK
    # What is left of equal rows by rounding is nothing.
    return np.asarray(np.where(apart_KK > 1e-12 * (own_K[:, None] + own_K[None, :]), apart_KK, 0.0))


def _noise_shares(compared: Sequence[Compared], best_trained: bool) -> Floats:
    """By how much of a single trial's noise variance any two rows differ: 1/n + 1/n of their trials."""
    own_R = np.array([float(one.trained) / one.trials for one in compared])
    best_R = np.array([float(best_trained) / one.trials for one in compared])
    shares_KK = np.zeros((len(compared) + 1, len(compared) + 1))
    shares_KK[1:, 1:] = own_R[:, None] + own_R[None, :]
    shares_KK[0, 1:] = shares_KK[1:, 0] = own_R + best_R
    np.fill_diagonal(shares_KK, 0.0)
    return shares_KK


def _noise_draws(
    noise: TrainingNoise, compared: Sequence[Compared], resamples: int, seed: int, *, best_trained: bool
) -> Floats:
    """Draws of each row's noise; the best one's, which every difference shares, has the trials of each comparison."""
    generator = np.random.default_rng(seed)
    sizes_B = noise.draws(generator, resamples)
    trials_R = np.array([one.trials for one in compared])
    most = int(trials_R.max())
    best_BM = generator.normal(size=(resamples, most)).cumsum(axis=1) / np.arange(1, most + 1)
    own_BR = generator.normal(size=(resamples, len(compared))) / np.sqrt(trials_R)
    own_BR *= np.array([one.trained for one in compared])
    away_BR = own_BR - best_BM[:, trials_R - 1] * float(best_trained)
    return np.asarray(np.concatenate([np.zeros((resamples, 1)), away_BR], axis=1) * sizes_B[:, None])


def _largest(away_BK: Floats, errors_KK: Floats) -> float:
    """The quantile, over the resamples, of the largest standardised difference between any two rows."""
    rows = away_BK.shape[1]
    per_error_KK = np.divide(1.0, errors_KK, out=np.zeros_like(errors_KK), where=errors_KK > 0).astype(np.float32)
    away_BK = away_BK.astype(np.float32)
    at_once = max(1, _NUMBERS_AT_ONCE // rows**2)
    largest_B = [
        (np.abs(part_BK[:, :, None] - part_BK[:, None, :]) * per_error_KK).max(axis=(1, 2))
        for part_BK in np.split(away_BK, range(at_once, len(away_BK), at_once))
    ]
    return float(np.quantile(np.concatenate(largest_B), LEVEL))
