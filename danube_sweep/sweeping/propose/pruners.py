"""A pruner's verdict on a trial at a validation, from the courses of all trials. No files, no clock, no chance."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Final, final

from danube_sweep.config.schema import Asha, Hyperband, Median, NoPruner, Patient, Pruner, WandbHyperband
from danube_sweep.config.schema.states import Verdict
from danube_sweep.results.courses import NEARLY, Course

AFTER_WARMUP: Final = 0.1
"""The share of its steps that a trial makes after its warm-up before it is judged."""
_MOST_BANDS: Final = 100
"""W&B's own number."""

Courses = Mapping[int, Course]
"""The trials that were validated, by number; those that failed are among them only for rules that end trials."""


def _count(share: float) -> int:
    return max(1, round(1 / share - 0.5 - NEARLY))


@final
@dataclass(frozen=True)
class Rungs:
    """Successive halving: rungs at every `share` of a trial's steps. The best 1/`reduction` continue past a rung.

    A trial comes to a rung with its first validation there, from its `least`-th on, and once its warm-up is over. With
    several brackets, a trial's number decides the rung at which it is first judged, and it is compared with the trials
    of its bracket.
    """

    share: float
    least: int
    reduction: int
    brackets: int = 1

    def _rungs(self, number: int, course: Course) -> range:
        after = math.ceil(_not_before(course) / self.share - NEARLY)
        return range(max(1 + number % self.brackets, after), _count(self.share) + 1)

    def _readings(self, number: int, course: Course) -> dict[int, int]:
        """Rung -> the number of the validation with which a trial has come to it."""
        found: dict[int, int] = {}
        rungs = self._rungs(number, course)
        rung = rungs.start
        for at in range(self.least - 1, len(course.readings)):
            share = course.readings[at].share
            if share >= 1 - NEARLY or rung >= rungs.stop:
                break
            while rung < rungs.stop and share >= rung * self.share - NEARLY:
                found[rung] = at + 1
                rung += 1
        return found

    def stands(self, number: int, course: Course) -> bool:
        """Whether a trial is judged at its last validation."""
        return len(course.readings) in self._readings(number, course).values()

    def passing(self, numbers: Iterable[int], courses: Courses) -> list[int]:
        """Those trials that rank high enough to continue past the rung where they are.

        One that is at no rung, since it paused by other settings of the pruner, continues to the next.
        """
        reached = {number: self._readings(number, course) for number, course in courses.items()}
        rivals: dict[tuple[int, int], list[float]] = defaultdict(list)
        for number, readings in reached.items():
            for rung, reading in readings.items():
                rivals[number % self.brackets, rung].append(_best_of(courses[number], reading))
        ranked = {place: sorted(values) for place, values in rivals.items()}
        found = []
        for number in numbers:
            last = len(courses[number].readings)
            here = [rung for rung, reading in reached[number].items() if reading == last]
            if here:
                others = ranked[number % self.brackets, max(here)]
                if bisect_left(others, courses[number].best) >= len(others) // self.reduction:
                    continue
            found.append(number)
        return found

    def next_share(self, number: int, course: Course) -> float:
        """The share of its steps at which a trial is judged next; 1 for its end."""
        for rung in self._rungs(number, course):
            if rung * self.share > course.share + NEARLY and rung * self.share < 1 - NEARLY:
                return rung * self.share
        return 1.0


def _not_before(course: Course) -> float:
    """The share of its steps before which a trial is not judged: its rate still rises, or has just done so."""
    return course.warmup + AFTER_WARMUP if course.warmup else 0.0


def _best_of(course: Course, readings: int) -> float:
    return min(reading.value for reading in course.readings[:readings])


@final
@dataclass(frozen=True)
class MedianRule:
    """A trial continues while its best value is no worse than the median of the others' values at its share of steps.

    Nothing is judged before `share` of a trial's steps, the end of its warm-up, its `least`-th validation, and
    `startup` others at that share.
    """

    share: float
    startup: int
    least: int

    def stands(self, number: int, course: Course) -> bool:
        """Whether a trial is judged at its last validation."""
        validated = len(course.readings) >= self.least
        return validated and self._first(course) - NEARLY <= course.share < 1 - NEARLY

    def _first(self, course: Course) -> float:
        return max(self.share, _not_before(course))

    def passing(self, numbers: Iterable[int], courses: Courses) -> list[int]:
        """Those trials that rank high enough to continue, of some that are judged now."""
        found, then = [], dict[float, list[float]]()
        for number in numbers:
            own = courses[number]
            if own.share not in then:
                reached = [course for course in courses.values() if course.share >= own.share - NEARLY]
                then[own.share] = sorted(course.up_to(own.share).best for course in reached)
            # A trial that came there with its first validation has no value at an earlier share.
            others = [*then[own.share]]
            del others[bisect_left(others, own.best)]
            values = [value for value in others if value < inf]
            if len(others) < self.startup or not values or own.best <= median(values):
                found.append(number)
        return found

    def next_share(self, number: int, course: Course) -> float:
        """The share of its steps at which a trial is judged next; 1 for its end."""
        each = course.share / len(course.readings) if course.readings else self.share
        return min(1.0, max(self._first(course), course.share + each))


@final
@dataclass(frozen=True)
class Patience:
    """A trial has ended when its last `patience` + 1 validations brought no better value."""

    patience: int
    min_delta: float

    def verdict(self, number: int, courses: Courses) -> Verdict:
        """The verdict on a trial after its last validation."""
        late = self.patience + 1
        values = [reading.value for reading in courses[number].readings]
        before, after = values[:-late], values[-late:]
        stood_still = bool(before) and min(after) >= min(before) - self.min_delta
        return Verdict.finish if stood_still else Verdict.go_on


def bands(pruner: WandbHyperband) -> list[int]:
    """The numbers of validations at which W&B compares, rising."""
    found: list[int] = []
    if pruner.max_iter is None:
        band = float(pruner.min_iter or 1)
        for _ in range(_MOST_BANDS):
            found.append(int(band))
            band *= pruner.eta
        return found
    band = float(pruner.max_iter)
    for _ in range(pruner.s or 0):
        band /= pruner.eta
        if band < 1:
            break
        found.append(int(band))
    return sorted(found)


@final
@dataclass(frozen=True)
class WandbBands:
    """W&B's hyperband, as its package `sweeps` 0.3.0 computes it, for a trial at each of its validations.

    At a band the values of all trials are sorted, and the one at floor(n / eta) is the threshold. A trial is judged at
    the last band that it has reached. It ends when its best value so far is worse than the threshold. With `strict`,
    its value at the band is compared instead.
    """

    bands: list[int]
    eta: float
    strict: bool

    def verdict(self, number: int, courses: Courses) -> Verdict:
        """The verdict on a trial after its last validation."""
        values = [reading.value for reading in courses[number].readings]
        band = max((band for band in self.bands if band <= len(values)), default=None)
        if band is None:
            return Verdict.go_on
        at_band = sorted(course.readings[band - 1].value for course in courses.values() if len(course.readings) >= band)
        threshold = at_band[int(1.0 / self.eta * len(at_band))]
        compared = values[band - 1] if self.strict else min(values)
        return Verdict.prune if compared > threshold else Verdict.go_on


Pausing = Rungs | MedianRule
"""Rules that pause trials, which may continue later."""
Ending = Patience | WandbBands
"""Rules that end trials, for good."""


def build_pruner(pruner: Pruner) -> Pausing | Ending | None:
    """The rule of a pruner; None where no trial ends early."""
    match pruner:
        case Hyperband(rung_share=share, min_validations=least, reduction=reduction):
            return Rungs(share, least, reduction, brackets=_count(share))
        case Asha(rung_share=share, min_validations=least, reduction=reduction):
            return Rungs(share, least, reduction)
        case Median(from_share=share, startup_trials=startup, min_validations=least):
            return MedianRule(share, startup, least)
        case Patient(patience=patience, min_delta=delta):
            return Patience(patience, delta)
        case WandbHyperband():
            return WandbBands(bands(pruner), pruner.eta, strict=pruner.strict)
        case NoPruner():
            return None
    raise TypeError(f"no pruner for {type(pruner).__name__}")
