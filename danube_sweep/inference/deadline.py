"""`predict --deadline-h`: before anything is predicted, a measured sample decides how much fits the time left."""

from collections.abc import Sequence
from dataclasses import dataclass

from danube_sweep.errors import ConfigError
from danube_sweep.terminal.screen import human

MARGIN = 1.15
"""The predicted seconds are multiplied by this, and must then fit."""


@dataclass(frozen=True)
class Cost:
    """The seconds of a pack: to load it, and one order of all rows with one member, and with each one more."""

    load_s: float
    first_s: float
    more_s: float

    def on(self, devices: int) -> "Cost":
        """Of so many devices that divide the rows: each loads the pack."""
        return Cost(self.load_s, self.first_s / devices, self.more_s / devices)


@dataclass(frozen=True)
class Choice:
    """The members that answer, by their places, whether both orders are read, and a line if that is less than asked."""

    members: list[int]
    swap: bool
    said: str | None


def choose(
    shares: Sequence[float],
    packs: Sequence[Sequence[int]],
    costs: Sequence[Cost],
    left_s: float,
    *,
    swaps: Sequence[bool],
) -> Choice:
    """The largest choice that fits: everything; without both orders; without the members of the smallest shares too.

    `shares` are the members' shares of the answer, `packs` the places of the members that answer together, and `costs`
    those of the packs. `swaps`: whether a pack reads both orders. Raises ConfigError if no member fits.
    """
    swap, left_s = any(swaps), max(left_s, 0.0)
    everyone = list(range(len(shares)))
    by_share = sorted(everyone, key=lambda one: (-shares[one], one))

    def seconds(members: Sequence[int], *, swapped: bool = False) -> float:
        total = 0.0
        for places, cost, both in zip(packs, costs, swaps, strict=True):
            if used := sum(one in members for one in places):
                orders = 1 + (both and swapped)
                total += cost.load_s + orders * (cost.first_s + (used - 1) * cost.more_s)
        return total * MARGIN

    asked = seconds(everyone, swapped=True)
    if asked <= left_s:
        return Choice(everyone, swap, None)
    for count in range(len(shares), 0, -1):
        members = sorted(by_share[:count])
        if (needed := seconds(members)) <= left_s:
            dropped = [f"{len(everyone) - count} of {len(everyone)} runs"] if count < len(everyone) else []
            dropped = [*(["--swap"] if swap else []), *dropped]
            said = (
                f"--deadline-h: everything would take {human(asked)}, and {human(left_s)} are left; without "
                f"{' and '.join(dropped)} it takes {human(needed)}"
            )
            return Choice(members, False, said)
    left = f"{human(left_s)} are left" if left_s else "no time is left after loading and timing a sample"
    raise ConfigError(
        f"--deadline-h: {left}, and a single run without --swap takes {human(seconds(by_share[:1]))}; give more time, "
        "or fewer rows"
    )
