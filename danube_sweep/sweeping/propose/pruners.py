"""A pruner's verdict on a trial at a validation, from the courses of all trials. No files, no clock, no chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final, final

from danube_sweep.config.schema import Asha, Hyperband, Median, NoPruner, Patient, Pruner, WandbHyperband
from danube_sweep.config.schema.states import Verdict
from danube_sweep.results.courses import NEARLY, Course

_MOST_BANDS: Final = 100
"""W&B's own number."""

Courses = Mapping[int, Course]
"""The trials that were validated, by number; those that failed are not among them."""


def _count(share: float) -> int:
    return max(1, round(1 / share - 0.5 - NEARLY))


@final
@dataclass(frozen=True)
class Rungs:
    """Successive halving: rungs at every `share` of a trial's steps. The best 1/`reduction` continue past a rung.

    A trial comes to a rung with its first validation there, from its `least`-th on. With several brackets, a trial's
    number decides the rung at which it is first judged, and it is compared with the trials of its bracket.
    """

    share: float
    least: int
    reduction: int
    brackets: int = 1

    def _rungs(self, number: int) -> range:
        return range(1 + number % self.brackets, _count(self.share) + 1)

    def _readings(self, number: int, course: Course) -> dict[int, int]:
        """Rung -> the number of the validation with which a trial has come to it."""
        found = {}
        for rung in self._rungs(number):
            at = self._first(course, rung)
            if at is not None and course.readings[at].share < 1 - NEARLY:
                found[rung] = at + 1
        return found

    def _first(self, course: Course, rung: int) -> int | None:
        places = range(self.least - 1, len(course.readings))
        return next((at for at in places if course.readings[at].share >= rung * self.share - NEARLY), None)

    def stands(self, number: int, course: Course) -> bool:
        """Whether a trial is judged at its last validation."""
        return len(course.readings) in self._readings(number, course).values()

    def passes(self, number: int, courses: Courses) -> bool:
        """Whether a trial that has come to a rung ranks high enough to continue."""
        reached = self._readings(number, courses[number])
        rung = max(rung for rung, reading in reached.items() if reading == len(courses[number].readings))
        rivals = [
            _best_of(course, self._readings(other, course)[rung])
            for other, course in courses.items()
            if other % self.brackets == number % self.brackets and rung in self._readings(other, course)
        ]
        own = _best_of(courses[number], reached[rung])
        return sum(rival < own for rival in rivals) < len(rivals) // self.reduction

    def next_share(self, number: int, course: Course) -> float:
        """The share of its steps at which a trial is judged next; 1 for its end."""
        for rung in self._rungs(number):
            if rung * self.share > course.share + NEARLY and rung * self.share < 1 - NEARLY:
                return rung * self.share
        return 1.0


def _best_of(course: Course, readings: int) -> float:
    return min(reading.value for reading in course.readings[:readings])


@final
@dataclass(frozen=True)
class MedianRule:
    """A trial continues while its best value is no worse than the median of the others' values at its share of steps.

    Nothing is judged before `share` of a trial's steps, its `least`-th validation, and `startup` others at that share.
    """

    share: float
    startup: int
    least: int

    def stands(self, number: int, course: Course) -> bool:
        """Whether a trial is judged at its last validation."""
        validated = len(course.readings) >= self.least
        return validated and self.share - NEARLY <= course.share < 1 - NEARLY

    def passes(self, number: int, courses: Courses) -> bool:
        """Whether a trial that is judged now ranks high enough to continue."""
        own = courses[number]
        reached = [
            course for other, course in courses.items() if other != number and course.share >= own.share - NEARLY
        ]
        if len(reached) < self.startup:
            return True
        then = [course.up_to(own.share) for course in reached]
        values = [course.best for course in then if course.readings]
        return not values or own.best <= median(values)

    def next_share(self, number: int, course: Course) -> float:
        """The share of its steps at which a trial is judged next; 1 for its end."""
        each = course.share / len(course.readings) if course.readings else self.share
        return min(1.0, max(self.share, course.share + each))


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
