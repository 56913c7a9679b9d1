"""Which trials of a sweep pause, end early and continue later: a pruner's rule over the folder.

All decisions follow from files in the folder: each trial's metrics.csv, and paused.json for a paused one. So any
process may decide, and any process may be killed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from danube_sweep.config.schema import Pruner, Sweep
from danube_sweep.config.schema.states import COMPLETE, State, Verdict
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.results.courses import Course
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, training_s
from danube_sweep.sweeping.propose.pause_policy import Known, PausePolicy
from danube_sweep.sweeping.propose.pruners import Ending, Pausing, build_pruner
from danube_sweep.sweeping.propose.standings import Standing, Standings


@final
class EarlyStopping:
    """Judges the trials of `folder` by a validation metric.

    `to_draw` returns how many trials a search has still to draw. Only one thread may use an object of this class.
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
        (metric, self._goal), *_ = objectives(sweep)
        self._standings = Standings(metric, self._goal)
        limit = None if self._budget is None and self._budget_h is None else self.most_steps
        self._policy = PausePolicy(self._rule, limit) if isinstance(self._rule, Pausing) else None
        self._promoted: dict[int, int] = {}
        """Number of a trial -> the count of validations up to which it must not be paused again."""
        self._going: set[int] = set()
        """Paused trials that this process has just claimed: their paused.json is there until they train."""
        self._began_s = clock()
        self._spent_s = 0.0 if self._budget_h is None else training_s(folder)
        """Before this object was made, by this process or others."""
        self._made_at_start: float | None = None

    def verdict(self, entry: Entry, validations: int) -> Verdict:
        """The verdict on a trial after `validations` validations, the last of which is on its record."""
        known = self._known(self._folder.entries())
        course = known.courses.get(entry.number, Course())
        course = replace(course, readings=course.readings[:validations])
        if self._rule is None or len(course.readings) < validations:
            return Verdict.go_on
        known.courses[entry.number] = course
        if isinstance(self._rule, Ending):
            return self._rule.verdict(entry.number, known.judged)
        assert self._policy is not None
        if self._promoted.get(entry.number, 0) >= validations or not self._rule.stands(entry.number, course):
            return Verdict.go_on
        if self._policy.goes_on(entry.number, known):
            self._promoted[entry.number] = validations
            return Verdict.go_on
        return Verdict.pause

    def promotions(self, entries: Sequence[Entry]) -> list[Entry]:
        """The paused trials that now rank high enough to continue, the most advanced first."""
        return [] if self._policy is None else _named(entries, self._policy.promotions(self._known(entries)))

    def revivals(self, entries: Sequence[Entry]) -> list[Entry]:
        """The paused trials that may still win, the likeliest first; none while others are to be seen before them."""
        return [] if self._policy is None else _named(entries, self._policy.revivals(self._known(entries)))

    def promoted(self, entry: Entry) -> None:
        """Records that a paused trial continues."""
        self._promoted[entry.number] = len(self._standings.course(entry).readings)
        self._going.add(entry.number)

    def left(self, entry: Entry) -> None:
        """States that a trial does not train any more."""
        self._going.discard(entry.number)

    def most_steps(self, known: Known) -> float:
        """The steps that all trials together may take by the budgets."""
        most = float("inf") if self._budget is None else self._budget * known.whole
        if self._budget_h is None:
            return most
        if self._made_at_start is None:
            self._made_at_start = 0.0 if self._spent_s else known.made
        passed_s = self._spent_s + self._clock() - self._began_s
        left_s = self._budget_h * 3600 - passed_s
        rate = (known.made - self._made_at_start) / max(passed_s, 1e-9)
        if rate <= 0 and left_s > 0:  # nobody knows yet
            return most
        return min(most, known.made + max(left_s, 0.0) * rate)

    def readings(self, entry: Entry) -> dict[int, float]:
        """A trial's values so far, as they were measured, by the thousandth of its steps."""
        sign = -1.0 if self._goal == "maximize" else 1.0
        return {round(1000 * one.share): sign * one.value for one in self._standings.course(entry).readings}

    def _known(self, entries: Sequence[Entry]) -> Known:
        courses: dict[int, Course] = {}
        paused: set[int] = set()
        still_open: set[int] = set()
        for entry in entries:
            if entry.hash is None or entry.confirms:
                continue
            standing = self._standings.of(entry)
            failed = standing.state is not None and standing.state not in COMPLETE
            if failed and not isinstance(self._rule, Ending):  # W&B compares with the runs of every state
                continue
            courses[entry.number] = replace(standing.course, finished=standing.state == State.finished.value)
            if standing.state is None:
                rests = standing.is_paused and entry.number not in self._going
                (paused if rests else still_open).add(entry.number)
        return Known(courses, paused, still_open, self.to_draw())

    def standing(self, entry: Entry) -> Standing:
        """Where a trial stands now."""
        return self._standings.of(entry)


def _named(entries: Sequence[Entry], numbers: Sequence[int]) -> list[Entry]:
    named = {entry.number: entry for entry in entries}
    return [named[number] for number in numbers]
