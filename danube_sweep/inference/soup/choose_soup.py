"""Which trials go into the soup: the greedy soup of Wortsman et al. 2022 (arXiv:2203.05482), and its worth.

The trials are tried in the order of their own loss. Each is kept if the average with it has a lower validation loss
than the average without it. Until one is kept, all that come next are tried against the same average, so they are
validated together in one pass. Axes: N examples, M ingredients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.answers import Codes
from danube_sweep.results.bootstrap import paired
from danube_sweep.storage.predictions import Floats

Chosen = tuple[int, ...]
"""The places of the ingredients that are averaged, in rising order."""
Evaluate = Callable[[Sequence[Chosen]], list[Floats]]
"""The losses [N] of some averages, from one pass over the rows."""


class Tasted:
    """Losses of averages, each evaluated once."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._known: dict[Chosen, Floats] = {}
        self.passes = 0

    def losses(self, wanted: Sequence[Chosen]) -> list[Floats]:
        """The losses of each average, the unknown ones in one pass."""
        new = [one for one in dict.fromkeys(wanted) if one not in self._known]
        if new:
            self.passes += 1
            self._known |= zip(new, self._evaluate(new), strict=True)
        return [self._known[one] for one in wanted]

    @property
    def count(self) -> int:
        """How many averages were evaluated."""
        return len(self._known)


@dataclass(frozen=True)
class Worth:
    """The soup and the best trial alone, on rows that chose them and on rows that did not."""

    single: float
    soup: float
    unseen_single: float
    unseen_soup: float
    half: float
    """Half of the 95 % interval of their difference on unseen rows, over groups of rows."""

    @property
    def difference(self) -> float:
        return self.unseen_soup - self.unseen_single


def greedy_soup(tasted: Tasted, count: int, rows: Codes) -> Chosen:
    """The greedy soup of so many ingredients, by their losses on some of the rows."""
    alone = [float(one[rows].mean()) for one in tasted.losses([(place,) for place in range(count)])]
    order = [int(place) for place in np.argsort(alone, kind="stable")]
    soup, rest, reached = [order[0]], order[1:], alone[order[0]]
    while rest:
        tried = tasted.losses([tuple(sorted([*soup, one])) for one in rest])
        better = next((k for k, one in enumerate(tried) if float(one[rows].mean()) < reached), None)
        if better is None:
            break
        reached = float(tried[better][rows].mean())
        soup.append(rest[better])
        rest = rest[better + 1 :]
    return tuple(sorted(soup))


def best_single(tasted: Tasted, count: int, rows: Codes) -> Chosen:
    """The ingredient with the lowest loss on some of the rows."""
    alone = [float(one[rows].mean()) for one in tasted.losses([(place,) for place in range(count)])]
    return (int(np.argmin(alone)),)


def worth_of(tasted: Tasted, count: int, chosen: Chosen, groups_N: Codes) -> Worth:
    """Chooses on one half of the groups and scores on the other, both ways."""
    everything = np.arange(len(groups_N))
    groups = int(groups_N.max()) + 1
    first_G = np.zeros(groups, dtype=np.bool_)
    first_G[np.random.default_rng(0).permutation(groups)[: groups // 2]] = True
    unseen = {choose: np.zeros(len(groups_N)) for choose in (best_single, greedy_soup)}
    for side in (first_G[groups_N], ~first_G[groups_N]):
        on, other = np.flatnonzero(side), np.flatnonzero(~side)
        for choose, losses_N in unseen.items():
            losses_N[other] = tasted.losses([choose(tasted, count, on)])[0][other]
    single, soup = tasted.losses([best_single(tasted, count, everything), chosen])
    _, half = paired(unseen[greedy_soup] - unseen[best_single], groups_N)
    return Worth(
        float(single.mean()),
        float(soup.mean()),
        float(unseen[best_single].mean()),
        float(unseen[greedy_soup].mean()),
        half,
    )
