"""`predict --deadline-h`: before anything is predicted, a measured sample decides how much fits the time left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from danube_sweep.errors import ConfigError
from danube_sweep.inference.joint_answers import States, joint_predictions
from danube_sweep.inference.predict import Place, Request, Trained, load
from danube_sweep.inference.predict_ensemble import Part
from danube_sweep.inference.runs_in_packs import Pack, load_pack, read_alike
from danube_sweep.terminal.screen import human

SAMPLE = 64
"""Rows that are timed, evenly spread over the file."""
MARGIN = 1.15
"""The predicted seconds are multiplied by this, and must then fit."""


@dataclass(frozen=True)
class Cost:
    """The seconds of a pack: to load it, and one order of all rows with one member, and with each one more."""

    load_s: float
    first_s: float
    more_s: float


@dataclass(frozen=True)
class Choice:
    """The members that answer, by their places, whether both orders are read, and a line if that is less than asked."""

    members: list[int]
    swap: bool
    said: str | None


def choose(
    shares: Sequence[float], packs: Sequence[Sequence[int]], costs: Sequence[Cost], left_s: float, *, swap: bool
) -> Choice:
    """The largest choice that fits: everything; without both orders; without the members of the smallest shares too.

    `shares` are the members' shares of the answer, `packs` the places of the members that answer together, and `costs`
    those of the packs. Raises ConfigError if no member fits.
    """
    everyone = list(range(len(shares)))
    by_share = sorted(everyone, key=lambda one: (-shares[one], one))

    def seconds(members: Sequence[int], orders: int) -> float:
        total = 0.0
        for places, cost in zip(packs, costs, strict=True):
            if used := sum(one in members for one in places):
                total += cost.load_s + orders * (cost.first_s + (used - 1) * cost.more_s)
        return total * MARGIN

    asked = seconds(everyone, 1 + swap)
    if asked <= left_s:
        return Choice(everyone, swap, None)
    for count in range(len(shares), 0, -1):
        members = sorted(by_share[:count])
        if (needed := seconds(members, 1)) <= left_s:
            dropped = [f"{len(everyone) - count} of {len(everyone)} runs"] if count < len(everyone) else []
            dropped = [*(["--swap"] if swap else []), *dropped]
            said = (
                f"--deadline-h: everything would take {human(asked)}, and {human(left_s)} are left; without "
                f"{' and '.join(dropped)} it takes {human(needed)}"
            )
            return Choice(members, False, said)
    raise ConfigError(
        f"--deadline-h: {human(left_s)} are left, and a single run without --swap takes "
        f"{human(seconds(by_share[:1], 1))}; give more time, or fewer rows"
    )


def measured(
    parts: Sequence[Part],
    requests: Sequence[Request],
    place: Place,
    *,
    batch_rows: int,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[list[int]], list[Cost]]:
    """The packs, and the cost of each in seconds, from a sample of the rows. Raises the errors of `load_pack`."""
    packs = read_alike([part.run for part in parts], place)
    return packs, [_cost([parts[one] for one in places], requests[places[0]], place, batch_rows, clock)
                   for places in packs]  # fmt: skip


def _cost(members: Sequence[Part], request: Request, place: Place, batch_rows: int, clock: Callable[[], float]) -> Cost:
    start = clock()
    alone, together, several = _loaded(members, place)
    loaded = clock()
    rows = len(request.input.ids)
    wanted = {round(number * (rows - 1) / max(min(SAMPLE, rows) - 1, 1)) for number in range(min(SAMPLE, rows))}
    sample = [record for number, record in enumerate(request.input.records()) if number in wanted]

    def seconds(some: Sequence[Trained], states: States, count: int) -> float:
        before = clock()
        joint_predictions(some, states, sample[:count], swap=False, batch_rows=batch_rows)
        return clock() - before

    first = several[:1]
    seconds(first, alone, 2)  # the first pass also does the set-up of later ones
    first_s = seconds(first, alone, len(sample))
    all_s = seconds(several, together, len(sample)) if len(several) > 1 else first_s
    grown = rows / len(sample)
    more_s = max(all_s - first_s, 0.0) / max(len(members) - 1, 1)
    return Cost(loaded - start, first_s * grown, more_s * grown)


def _loaded(members: Sequence[Part], place: Place) -> tuple[States, States, list[Trained]]:
    """The states of one member, and of all of them, and the members."""
    if len(members) == 1:
        trained = load(members[0].run, place)
        return trained.states, trained.states, [trained]
    pack = load_pack([part.run for part in members], place)
    alone = Pack(pack.members[:1], [0], pack.adapters, pack.prefix)
    return alone.states, pack.states, pack.members


def chosen_parts(
    parts: Sequence[Part], requests: Sequence[Request], choice: Choice
) -> tuple[list[Part], list[Request]]:
    """The chosen members, whose shares sum to 1 again, and their requests."""
    total = sum(parts[one].share for one in choice.members)
    kept = [replace(parts[one], share=parts[one].share / total) for one in choice.members]
    return kept, [replace(requests[one], swap=requests[one].swap and choice.swap) for one in choice.members]
