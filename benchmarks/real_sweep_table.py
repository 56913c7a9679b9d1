"""The records of `real_sweep.py`, and its table: seconds to the same loss, the winners' test losses, and the goals."""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import sides
from readings import Course, Reading, ratios, replay

WITHIN, NEVER = 0.01, float("inf")
GOALS = {"cpu": 5.0, "cuda": 10.0}
"""How many times as fast, by device."""
MARGIN = 0.05
"""A test loss at most this much higher is as good: the interval of the difference must end below it."""
ROUNDING = 1e-4
"""Two test losses this close are those of the same trial, computed on either side."""
EVERYTHING = "everything on"
"""The arm that is compared with the baseline."""


@dataclass
class Winner:
    """The trial of a sweep with the lowest validation loss, its words in the grid, and the losses of the test rows."""

    name: str
    validation: float
    test: list[float]


@dataclass
class Ours:
    """A sweep of this tool."""

    reading: Reading
    winner: Winner

    def save(self, file: Path) -> None:
        rows = [[*key, loss, self.reading.seconds[key]] for key, loss in self.reading.losses.items()]
        whole = {"readings": rows, "total": self.reading.total, "winner": vars(self.winner)}
        file.with_suffix(".part").write_text(json.dumps(whole))
        file.with_suffix(".part").replace(file)

    @classmethod
    def load(cls, file: Path) -> "Ours":
        stored = json.loads(file.read_text())
        reading = Reading(total=stored["total"])
        for trial, step, loss, seconds in stored["readings"]:
            reading.add(trial, step, loss, seconds)
        return cls(reading, Winner(**stored["winner"]))


@dataclass
class Theirs:
    """The baseline's sweep with one seed: its trials, and its readings in random orders of them."""

    courses: dict[str, Course]
    readings: list[Reading]

    @property
    def winner(self) -> Course:
        return min(self.courses.values(), key=lambda course: course.best)


def spread(values: Sequence[float], digits: int) -> str:
    """The median and the range."""
    told = [
        "never" if value == NEVER else f"{value:.{digits}f}"
        for value in (statistics.median(values), min(values), max(values))
    ]
    return "{} ({} to {})".format(*told)


def show(
    data: str,
    options: argparse.Namespace,
    groups_N: Any,
    theirs: Sequence[Theirs],
    arms: Mapping[str, Sequence[Sequence[Ours]]],
) -> None:
    """The table of a data set, and its goals. `groups_N`: the groups of the test rows."""
    from danube_sweep.results.bootstrap import paired

    readings = [reading for one in theirs for reading in one.readings]
    target = statistics.fmean(one.winner.best for one in theirs)
    limit, total = target + WITHIN, statistics.median(one.total for one in readings)
    reached = [_or_never(one.first(limit)) for one in readings]
    print(f"\n{data}: {len(theirs[0].courses)} trials of {options.steps} steps, {options.clock} seconds")
    print(
        f"random orders for each of {len(theirs)} seeds: {options.orders} of the baseline, {options.our_orders} of ours"
    )
    print(f"the baseline's expected best is {target:.4f}, so the loss to reach {limit:.4f}")
    print(f"{reached.count(NEVER)} of {len(reached)} replays never reach it: they count with their whole sweep")
    print(f"{'':<32} {'to that loss, s':>22} {'ratio':>22} {'whole s':>8} {'ratio':>6}  {'winner, test loss':<20}")
    test_N = np.mean([one.winner.test for one in theirs], axis=0)

    def row(name: str, reached: Sequence[float], quotients: str, whole: str, losses_N: Any) -> None:
        loss, half = paired(losses_N, groups_N)
        print(f"{name:<32} {spread(reached, 0):>22} {quotients:>22} {whole}  {loss:.4f} ±{half:.4f}")

    row("baseline", reached, "", f"{total:8.0f} {'':>6}", test_N)
    for name, arm in arms.items():
        sweeps = [one for seed in arm for one in seed]
        own_total = statistics.median(one.reading.total for one in sweeps)
        whole = f"{own_total:8.0f} {total / own_total:6.2f}"
        row(
            name,
            [_or_never(one.reading.first(limit)) for one in sweeps],
            spread(over_seeds(theirs, arm, limit), 2),
            whole,
            np.mean([one.winner.test for one in sweeps], axis=0),
        )
    ours = arms[EVERYTHING]
    apart = max(
        sides.furthest(own.reading, replay(0.0, one.courses, list(one.courses)))
        for one, seed in zip(theirs, ours, strict=True)
        for own in seed
    )
    print(f"validation losses of {EVERYTHING} and of the baseline: at most {apart:.1e} apart")
    own_N = np.mean([one.winner.test for seed in ours for one in seed], axis=0)
    ratio, goal = statistics.median(over_seeds(theirs, ours, limit)), GOALS[options.device]
    for line in verdicts(ratio, goal, *paired(own_N - test_N, groups_N)):
        print(line)


def over_seeds(theirs: Sequence[Theirs], arm: Sequence[Sequence[Ours]], limit: float) -> list[float]:
    """The ratios of all pairs of a sweep of the baseline and one of this tool with the same seed."""
    return [
        ratio
        for one, seed in zip(theirs, arm, strict=True)
        for ratio in ratios(one.readings, [own.reading for own in seed], limit)
    ]


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds


def verdicts(ratio: float, goal: float, apart: float, half: float) -> Iterator[str]:
    """The goals, met, missed or undecided; `apart` is our winner's test loss less theirs, ± `half`."""
    said = "met" if ratio >= goal else "missed"
    yield f"goal: at least {goal:g} times as fast to it, in the median over orders and seeds: {ratio:.2f}: {said}"
    said = "met" if apart + half <= MARGIN else "undecided, as the test part is too small"
    said = "missed" if apart > half + ROUNDING else said
    yield (
        f"goal: the winner's test loss is not higher by more than its interval, and surely not by {MARGIN:g}: "
        f"{apart:+.4f} ±{half:.4f}: {said}"
    )
