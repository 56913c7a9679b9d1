"""Which trials of a sweep pause, end early, and go on later: a pruner's rule over the folder, and what may be spent.

The folder holds all that decides: each trial's validations in its metrics.csv, and a paused.json where it is paused. So
any process may decide, and any may be killed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from danube_sweep.config.schema import Pruner, Sweep
from danube_sweep.config.schema.states import COMPLETE, Verdict
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import CheckpointError
from danube_sweep.results.courses import NEARLY, Course, course_of
from danube_sweep.results.regret import chances
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.propose.pruners import Ending, Pausing, build_pruner

WORTH_REVIVING: Final = 0.05
"""The chance of being the best from which a paused trial goes on when nothing new is left to start."""


@dataclass(frozen=True)
class _Known:
    """The trials at a moment, by number."""

    courses: dict[int, Course]
    """Of those that have not failed."""
    paused: set[int]
    open: set[int]
    """Without a result and not paused: they wait, train, or will be resumed."""

    @property
    def judged(self) -> dict[int, Course]:
        return {number: course for number, course in self.courses.items() if course.readings}


@final
class EarlyStopping:
    """Judges the trials of `folder` by a validation metric.

    `to_draw` tells how many trials a search has still to draw. Only one thread may use it.
    """

    def __init__(
        self,
        folder: SweepFolder,
        pruner: Pruner,
        sweep: Sweep,
        to_draw: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._rule, self.to_draw, self._clock = folder, build_pruner(pruner), to_draw, clock
        self._budget, self._budget_h = sweep.budget, sweep.budget_h
        (self._metric, self._goal), *_ = objectives(sweep)
        self._promoted: dict[int, int] = {}
        """Number of a trial -> the validation past which it was told to go on."""
        self._going: set[int] = set()
        """Paused trials that this process has just claimed: their paused.json is there until they train."""
        self._began_s = clock()
        self._made_at_start: float | None = None

    # ---------------------------------------------------------------------------------------------- at a validation

    def verdict(self, entry: Entry, validations: int) -> Verdict:
        """What becomes of a trial after so many validations, the last of which is on its record."""
        known = self._known(self._folder.entries())
        course = known.courses.get(entry.number, Course())
        course = Course(course.readings[:validations], course.total_steps)
        if self._rule is None or len(course.readings) < validations:
            return Verdict.go_on
        known.courses[entry.number] = course
        if isinstance(self._rule, Ending):
            return self._rule.verdict(entry.number, known.judged)
        if self._promoted.get(entry.number, 0) >= validations or not self._rule.stands(entry.number, course):
            return Verdict.go_on
        if self._goes_on(self._rule, entry.number, known):
            self._promoted[entry.number] = validations
            return Verdict.go_on
        return Verdict.pause

    def _goes_on(self, rule: Pausing, number: int, known: _Known) -> bool:
        known.open.discard(number)
        if rule.passes(number, known.judged):
            return self._is_affordable(rule, number, known)
        known.paused.add(number)
        return next(iter(self._revivals(rule, known)), None) == number

    # ------------------------------------------------------------------------------------------------- paused ones

    def promotions(self, entries: Sequence[Entry]) -> list[Entry]:
        """The paused trials that rank high enough by now to go on, those that have come furthest first."""
        if not isinstance(rule := self._rule, Pausing):
            return []
        known = self._known(entries)
        judged = known.judged
        passing = [number for number in known.paused if number in judged and rule.passes(number, judged)]
        passing.sort(key=lambda number: (-judged[number].share, judged[number].best))
        named = {entry.number: entry for entry in entries}
        return [named[number] for number in passing if self._is_affordable(rule, number, known)]

    def revivals(self, entries: Sequence[Entry]) -> list[Entry]:
        """The paused trials that may still win, the likeliest first; none while others are to be seen before them."""
        if not isinstance(rule := self._rule, Pausing):
            return []
        named = {entry.number: entry for entry in entries}
        return [named[number] for number in self._revivals(rule, self._known(entries))]

    def _revivals(self, rule: Pausing, known: _Known) -> list[int]:
        if not known.paused or self.to_draw() or any(known.courses[one].share == 0 for one in known.open):
            return []
        judged = known.judged
        if any(self._is_new(rule, one, judged[one]) for one in known.open):
            return []
        chance = chances(judged)
        ranked = sorted(((chance.get(one, 1.0), one) for one in known.paused if one in judged), reverse=True)
        if not known.open and not any(course.share >= 1 - NEARLY for course in judged.values()):
            ranked = [(1.0, one) for _, one in ranked[:1]] + ranked[1:]  # one at least comes to its end
        likely = [one for worth, one in ranked if worth > WORTH_REVIVING]
        return [one for one in likely if self._is_affordable(rule, one, known)]

    def _is_new(self, rule: Pausing, number: int, course: Course) -> bool:
        # It has not come to its first rung.
        return not any(
            rule.stands(number, Course(course.readings[:count], course.total_steps))
            for count in range(1, len(course.readings) + 1)
        )

    def promoted(self, entry: Entry) -> None:
        """States that a paused trial goes on."""
        self._promoted[entry.number] = len(self._course(entry).readings)
        self._going.add(entry.number)

    def left(self, entry: Entry) -> None:
        """States that a trial does not train any more."""
        self._going.discard(entry.number)

    # -------------------------------------------------------------------------------------------------- the budget

    def _is_affordable(self, rule: Pausing, number: int, known: _Known) -> bool:
        """Whether the budget suffices for a trial's steps to where it is judged next, and for all that is under way."""
        if self._budget is None and self._budget_h is None:
            return True
        mean = _mean_steps(known.courses)
        made = sum(_steps(course, mean) * course.share for course in known.courses.values())
        coming = sum(self._to_next(rule, one, known.courses[one], mean) for one in known.open)
        coming += self.to_draw() * self._to_next(rule, 1, Course(), mean)
        own = self._to_next(rule, number, known.courses[number], mean)
        if not known.open and not any(course.share >= 1 - NEARLY for course in known.courses.values()):
            return True  # one at least comes to its end
        return made + coming + own <= self._may_make(made, known, mean) * (1 + NEARLY)

    def _to_next(self, rule: Pausing, number: int, course: Course, mean: float) -> float:
        return max(0.0, rule.next_share(number, course) - course.share) * _steps(course, mean)

    def _may_make(self, made: float, known: _Known, mean: float) -> float:
        most = float("inf")
        if self._budget is not None:
            whole = sum(_steps(course, mean) for course in known.courses.values()) + self.to_draw() * mean
            most = self._budget * whole
        if self._budget_h is not None:
            if self._made_at_start is None:
                self._made_at_start = made
            passed_s = self._clock() - self._began_s
            left_s = self._budget_h * 3600 - passed_s
            rate = (made - self._made_at_start) / max(passed_s, 1e-9)
            most = min(most, made + max(left_s, 0.0) * rate if rate > 0 or left_s <= 0 else most)
        return most

    # --------------------------------------------------------------------------------------------- what there is

    def _known(self, entries: Sequence[Entry]) -> _Known:
        courses: dict[int, Course] = {}
        paused: set[int] = set()
        still_open: set[int] = set()
        for entry in entries:
            if entry.hash is None or entry.confirms:
                continue
            state = _state(entry)
            if state is not None and state not in COMPLETE:
                continue
            courses[entry.number] = self._course(entry)
            if state is None:
                rests = entry.folder.paused.is_file() and entry.number not in self._going
                (paused if rests else still_open).add(entry.number)
        return _Known(courses, paused, still_open)

    def _course(self, entry: Entry) -> Course:
        return course_of(entry.folder, self._metric, self._goal)

    def readings(self, entry: Entry) -> dict[int, float]:
        """A trial's values so far, as they were measured, by the thousandth of its steps."""
        sign = -1.0 if self._goal == "maximize" else 1.0
        return {round(1000 * one.share): sign * one.value for one in self._course(entry).readings}


def _state(entry: Entry) -> str | None:
    try:
        result = entry.folder.read_result()
        return None if result is None else str(result["state"])
    except (CheckpointError, KeyError):  # cut short: the trial is run again
        return None


def _mean_steps(courses: Mapping[int, Course]) -> float:
    known = [course.total_steps for course in courses.values() if course.total_steps is not None]
    return sum(known) / len(known) if known else 1.0


def _steps(course: Course, mean: float) -> float:
    return mean if course.total_steps is None else course.total_steps
