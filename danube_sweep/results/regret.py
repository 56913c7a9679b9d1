"""The chance that a trial which did not train to its end would have been the best, from the sweep's own courses."""

import math
from bisect import bisect_right
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Final, TypeVar

from danube_sweep.results.courses import NEARLY, Course

Key = TypeVar("Key", bound=Hashable)

FROM_SHARE: Final = 0.1
"""Earlier validations are of the warm-up: their differences say nothing of later ones."""
MOST_CLOSING: Final = 1.0
"""A gap closes at most with one over the share of the steps."""
CAUTION: Final = 1.5
"""Ratio of the standard deviation ahead to the observed one, which is too small: only good trials were continued."""


def chances(courses: Mapping[Key, Course]) -> dict[Key, float]:
    """For each trial that was validated and did not train to its end, the chance that it would beat all others.

    A trial's gap to the leader is followed from validation to validation, over the logarithm of the share of its steps.
    It closes at a rate common to all trials, and beyond that walks at random. The leader is the best trial that has
    come to its end. If none has, it is the best trial, which is then left out.
    """
    seen = {key: course for key, course in courses.items() if course.readings}
    if not seen:
        return {}
    whole = {key: course for key, course in seen.items() if course.is_whole}
    leading = min(whole or seen, key=lambda key: seen[key].best)
    leader = _Leader(seen[leading])
    rate, variance = _closing([leader.gaps(course) for key, course in seen.items() if key != leading])
    return {
        key: _chance(leader, course, rate, variance)
        for key, course in seen.items()
        if key != leading and key not in whole
    }


class _Leader:
    """The best value of a trial so far, at any share of its steps."""

    def __init__(self, course: Course) -> None:
        self.share, self._is_whole = course.share, course.is_whole
        self._shares = [reading.share - NEARLY for reading in course.readings]
        self._best: list[float] = []
        for reading in course.readings:
            self._best.append(min(reading.value, self._best[-1] if self._best else math.inf))
        self._values = [reading.value for reading in course.readings]

    def _place(self, share: float) -> int | None:
        place = bisect_right(self._shares, share) - 1
        return place if place >= 0 else None

    def gaps(self, course: Course) -> list[tuple[float, float]]:
        """How much worse a trial was at each share that both have come to."""
        both = [(one, self._place(one.share)) for one in course.readings if one.share >= FROM_SHARE - NEARLY]
        reached = self.share + NEARLY
        return [
            (one.share, one.value - self._values[at]) for one, at in both if at is not None and one.share <= reached
        ]

    def gap(self, course: Course) -> float:
        """How much worse the trial's best value is than the leader's, at the last share that both have come to.

        A leader that finished keeps its best value for all later shares.
        """
        share = course.share if self._is_whole else min(course.share, self.share)
        place = self._place(share)
        return course.up_to(share).best - (self._best[place] if place is not None else self._best[0])


def _closing(followed: list[list[tuple[float, float]]]) -> tuple[float, float]:
    """The rate at which gaps close, and the variance of their other changes, both for a factor e of the share."""
    moves = [
        (gap * span, after - gap, span)
        for gaps in followed
        for (share, gap), (later, after) in pairwise(gaps)
        if (span := math.log(later / share)) > 0
    ]
    if len(moves) < 3:
        return 0.0, 0.0
    squares = sum(drift * drift for drift, _, _ in moves)
    # Half of the fitted rate: a gap that is read with noise seems to close.
    fitted = 0.5 * sum(drift * change for drift, change, _ in moves) / squares if squares > 0 else 0.0
    rate = min(0.0, max(-MOST_CLOSING, fitted))
    return rate, sum((change - rate * drift) ** 2 / span for drift, change, span in moves) / len(moves)


def _chance(leader: _Leader, course: Course, rate: float, variance: float) -> float:
    left = -math.log(max(course.share, NEARLY))
    gap = leader.gap(course) * math.exp(rate * left)
    deviation = CAUTION * math.sqrt(variance * left)
    if deviation <= 0:
        return float(gap < 0)
    return 0.5 * math.erfc(gap / deviation / math.sqrt(2))
