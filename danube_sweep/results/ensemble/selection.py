"""Temperatures and weights of an ensemble: greedy selection with replacement (Caruana et al. 2004).

Axes: M members, T temperatures, N examples, A parts of an example's loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.answers import Codes
from danube_sweep.results.ensemble.members import TEMPERATURES, losses
from danube_sweep.storage.predictions import Floats

ROUNDS = 25
"""Picks of the greedy selection; the best of its prefixes is kept."""


@dataclass(frozen=True)
class Pool:
    """The members' answers, as parts of the loss that blend linearly."""

    parts_TNA: Sequence[Floats]
    """Of each member."""
    groups_N: Codes
    numbers: bool


@dataclass(frozen=True)
class Blend:
    """A weight and the place of a temperature for each member."""

    weights_M: Floats
    temperatures_M: Codes

    def parts(self, pool: Pool, rows: Codes) -> Floats:
        """The part of the loss that blends linearly, of these examples."""
        shares = zip(pool.parts_TNA, self.weights_M, self.temperatures_M, strict=True)
        used = [weight * parts[place, rows] for parts, weight, place in shares if weight]
        return np.asarray(np.sum(used, axis=0))

    def losses(self, pool: Pool, rows: Codes) -> Floats:
        """The loss of each of these examples."""
        return losses(self.parts(pool, rows), numbers=pool.numbers)


def temperature_value(place: int, *, numbers: bool) -> float:
    return 1.0 if numbers else float(TEMPERATURES[place])


def untempered(pool: Pool) -> int:
    return 0 if pool.numbers else int(np.flatnonzero(TEMPERATURES == 1.0)[0])


def best_temperatures(pool: Pool, rows: Codes) -> Codes:
    """For each member the place of the temperature with the lowest loss on these rows."""
    places = [int(losses(one[:, rows], numbers=pool.numbers).mean(axis=-1).argmin()) for one in pool.parts_TNA]
    return np.array(places, dtype=np.int64)


def best_single(pool: Pool, rows: Codes) -> Blend:
    """The member with the lowest loss on these rows, as it answers itself."""
    plain_M = np.full(len(pool.parts_TNA), untempered(pool))
    return _alone(order_of(pool, rows, plain_M)[:1], plain_M)


def mean_of_best(pool: Pool, rows: Codes, count: int) -> Blend:
    """The plain mean of the best members."""
    plain_M = np.full(len(pool.parts_TNA), untempered(pool))
    return _alone(order_of(pool, rows, plain_M)[:count], plain_M)


def greedy(pool: Pool, rows: Codes, rounds: int = ROUNDS) -> Blend:
    """Each round adds the member that lowers the loss of the mean most; a member can be picked again.

    Its temperatures are fitted first. The prefix of the picks with the lowest loss is kept, the shorter one if equal.
    """
    temperatures_M = best_temperatures(pool, rows)
    parts_MNA = np.stack([one[place, rows] for one, place in zip(pool.parts_TNA, temperatures_M, strict=True)])
    total_NA = np.zeros_like(parts_MNA[0])
    picks: list[int] = []
    reached: list[float] = []
    for count in range(1, rounds + 1):
        means_M = losses((total_NA + parts_MNA) / count, numbers=pool.numbers).mean(axis=-1)
        picks.append(int(means_M.argmin()))
        reached.append(float(means_M[picks[-1]]))
        total_NA = total_NA + parts_MNA[picks[-1]]
    kept = picks[: int(np.argmin(reached)) + 1]
    return Blend(np.bincount(kept, minlength=len(parts_MNA)) / len(kept), temperatures_M)


def order_of(pool: Pool, rows: Codes, temperatures_M: Codes) -> list[int]:
    """The members by their loss on these rows, the best first."""
    each = [
        float(losses(one[place, rows], numbers=pool.numbers).mean())
        for one, place in zip(pool.parts_TNA, temperatures_M, strict=True)
    ]
    return [int(place) for place in np.argsort(each, kind="stable")]


def _alone(members: Sequence[int], temperatures_M: Codes) -> Blend:
    weights_M = np.zeros(len(temperatures_M))
    weights_M[list(members)] = 1 / len(members)
    return Blend(weights_M, temperatures_M)
