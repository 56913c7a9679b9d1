"""Which trials pause and which paused ones continue, from the courses of all. No files and no clock."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, final

from danube_sweep.results.courses import NEARLY, Course
from danube_sweep.results.regret import chances
from danube_sweep.sweeping.propose.pruners import Pausing

WORTH_REVIVING: Final = 0.05
"""The least chance of being the best with which a paused trial continues once nothing new is left to start."""


@dataclass(frozen=True)
class Known:
    """The trials of a sweep at a moment, by number."""

    courses: dict[int, Course]
    """Of the trials that have not failed."""
    paused: set[int]
    open: set[int]
    """Without a result and not paused: they wait, train, or will be resumed."""
    to_draw: int = 0
    """How many a search has still to draw."""

    @cached_property
    def judged(self) -> dict[int, Course]:
        """Those that were validated."""
        return {number: course for number, course in self.courses.items() if course.readings}

    @cached_property
    def mean_steps(self) -> float:
        """Of a trial; 1 while no trial was built."""
        known = [course.total_steps for course in self.courses.values() if course.total_steps is not None]
        return sum(known) / len(known) if known else 1.0

    @cached_property
    def warmup(self) -> float:
        """The longest share of its steps in which a trial warms up, for those that were not built."""
        return max((course.warmup for course in self.courses.values()), default=0.0)

    def steps(self, number: int) -> float:
        """All steps of a trial; of one that was not built, the mean of the others."""
        found = self.courses[number].total_steps
        return self.mean_steps if found is None else found

    @property
    def made(self) -> float:
        """Steps that were made so far, up to the last validations."""
        return sum(self.steps(number) * course.share for number, course in self.courses.items())

    @property
    def whole(self) -> float:
        """Steps of training every trial to its end, with those to be drawn."""
        return sum(self.steps(number) for number in self.courses) + self.to_draw * self.mean_steps


@final
@dataclass(frozen=True)
class PausePolicy:
    """A pruner's rule and a budget: `most_steps` is for all trials together, None for no limit."""

    rule: Pausing
    most_steps: Callable[[Known], float] | None = None
    worth: float = WORTH_REVIVING

    def goes_on(self, number: int, known: Known) -> bool:
        """Whether a trial that has come to a rung with its last validation continues."""
        others = Known(known.courses, known.paused, known.open - {number}, known.to_draw)
        if self.rule.passing([number], known.judged):
            return self._is_affordable(number, others)
        resting = Known(known.courses, known.paused | {number}, others.open, known.to_draw)
        return next(iter(self.revivals(resting)), None) == number

    def promotions(self, known: Known) -> list[int]:
        """The paused trials that now rank high enough to continue, the most advanced first."""
        judged = known.judged
        passing = self.rule.passing([number for number in known.paused if number in judged], judged)
        passing.sort(key=lambda number: (-judged[number].share, judged[number].best))
        return [number for number in passing if self._is_affordable(number, known)]

    def revivals(self, known: Known) -> list[int]:
        """The paused trials that may still win, the likeliest first; none while others are to be seen before them."""
        if not known.paused or known.to_draw or any(self._is_new(one, known.courses[one]) for one in known.open):
            return []
        judged = known.judged
        chance = chances(judged)
        ranked = sorted(((chance.get(one, 1.0), one) for one in known.paused if one in judged), reverse=True)
        if _lacks_a_whole_one(known):
            ranked = [(1.0, one) for _, one in ranked[:1]] + ranked[1:]
        return [one for worth, one in ranked if worth > self.worth and self._is_affordable(one, known)]

    def _is_new(self, number: int, course: Course) -> bool:
        """Whether a trial has not yet reached the point where it is first judged."""
        counts = range(1, len(course.readings) + 1)
        return not any(self.rule.stands(number, replace(course, readings=course.readings[:n])) for n in counts)

    def _is_affordable(self, number: int, known: Known) -> bool:
        """Whether there are steps for a trial up to where it is judged next, and for all that is under way."""
        if self.most_steps is None or _lacks_a_whole_one(known):
            return True
        coming = sum(self._to_next(one, known) for one in {*known.open, number})
        first = self.rule.next_share(1, Course(warmup=known.warmup)) * known.mean_steps
        return known.made + coming + known.to_draw * first <= self.most_steps(known) * (1 + NEARLY)

    def _to_next(self, number: int, known: Known) -> float:
        course = known.courses[number]
        course = replace(course, warmup=known.warmup) if course.total_steps is None else course
        return max(0.0, self.rule.next_share(number, course) - course.share) * known.steps(number)


def _lacks_a_whole_one(known: Known) -> bool:
    # At least one trial comes to its end, whatever the budget.
    return not known.open and not any(course.is_whole for course in known.courses.values())
