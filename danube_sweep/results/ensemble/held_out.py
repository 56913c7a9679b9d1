"""How good an ensemble is on unseen rows: everything is chosen on one half, and scored on the other.

Axes: N examples, B resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.answers import Codes
from danube_sweep.results.bootstrap import paired
from danube_sweep.results.ensemble.selection import Blend, Pool

SPLITS = 20
"""Random halvings of the groups; each row is scored once in each."""

Chooser = Callable[[Pool, Codes], Blend]


@dataclass(frozen=True)
class Estimate:
    """The loss of one way to choose, on unseen rows."""

    loss: float
    difference: float
    """To the best single model, chosen on the same rows."""
    half: float
    """Half of the difference's 95 % interval over groups of rows."""

    @property
    def better(self) -> bool:
        """Whether it beats the best single model by more than the choice of rows explains."""
        return self.difference + self.half < 0


def held_out(pool: Pool, choosers: Mapping[str, Chooser], single: str) -> dict[str, Estimate]:
    """Scores each way to choose; `single` names the one that the others are compared with.

    Models chosen on half the rows are chosen less well than on all, so the estimates are rather too high.
    """
    losses = {name: np.zeros(len(pool.groups_N)) for name in choosers}
    generator = np.random.default_rng(0)
    groups = len(np.unique(pool.groups_N))
    for _ in range(SPLITS):
        first_G = np.zeros(groups, dtype=np.bool_)
        first_G[generator.permutation(groups)[: groups // 2]] = True
        sides = first_G[pool.groups_N]
        for chosen_on in (sides, ~sides):
            rows, other = np.flatnonzero(chosen_on), np.flatnonzero(~chosen_on)
            for name, choose in choosers.items():
                losses[name][other] += choose(pool, rows).losses(pool, other) / SPLITS
    return {
        name: Estimate(float(found.mean()), *paired(found - losses[single], pool.groups_N))
        for name, found in losses.items()
    }
