"""The rows that can be told from the best one: simultaneous intervals over validation rows and training noise.

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
    """Half of each difference's 95 % interval. With probability .95 all of them hold, whichever row looked best.

    The two errors are combined in quadrature. One comes from resamples of the validation rows. The other comes from
    normal draws of the training noise, whose size is drawn too, so few repeats give Student's wide tails.

    Each difference is measured in its own 95 % quantile over the draws, so the wide tails of noisy rows do not widen
    the others (balanced: Beran 1988). In each draw the largest difference between any two rows is taken, since the best
    was chosen by looking. Its 95 % quantile is the factor (Tukey's range by bootstrap).

    Then rows that are told apart leave, and the fewer others are compared again among themselves (step-down: Romano and
    Wolf 2005). The set that stays is Hansen's model confidence set (2011).
    """
    if not compared:
        return []
    away_BR = np.stack([one.away_B for one in compared], axis=1)
    differences_R = np.array([one.difference for one in compared])
    away_BK = np.concatenate([np.zeros((len(away_BR), 1)), away_BR], axis=1)
    if noise is not None:
        away_BK += _noise_draws(noise, compared, len(away_BK), seed, best_trained=best_trained)
    errors_KK = _quantiles(away_BK)
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


def _quantiles(away_BK: Floats) -> Floats:
    """The 95 % quantile, over the resamples, of the difference between any two rows, whichever sign it has."""
    away_BK = away_BK.astype(np.float32)
    place = round(LEVEL * (len(away_BK) - 1))
    apart = [np.partition(np.abs(away_BK - away_BK[:, [row]]), place, axis=0)[place] for row in range(away_BK.shape[1])]
    found_KK = np.stack(apart).astype(np.float64)
    # A remainder from rounding between equal rows is zero.
    return np.asarray(np.where(found_KK > 1e-6 * np.abs(away_BK).max(initial=0.0), found_KK, 0.0))


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
