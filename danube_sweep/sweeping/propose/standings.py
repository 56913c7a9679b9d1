"""Where the trials of a sweep stand, by their files. A trial's folder is looked into when it has changed.

A file that is made, renamed or removed changes its folder's time. So one look at that time tells that a trial which has
ended, is paused, or was never begun is as it was. Only of a trial that trains are the validations looked at each time.
"""

import os
import time
from dataclasses import dataclass, replace
from typing import final

from danube_sweep.errors import CheckpointError
from danube_sweep.results.courses import Course, course_of
from danube_sweep.storage.sweep_folder import Entry
from danube_sweep.storage.trial_index import SETTLED_NS


@dataclass(frozen=True)
class Standing:
    """A trial at a moment."""

    state: str | None
    """In its result; None without one, or for a damaged one."""
    has_result: bool
    is_paused: bool
    """Whether it has a paused.json."""
    has_checkpoints: bool
    course: Course

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is appended to its files before a file comes or goes."""
        return self.has_result or self.is_paused or self.course.total_steps is None


@final
class Standings:
    """The standings of trials by a validation metric, for one thread."""

    def __init__(self, metric: str, goal: str) -> None:
        self._metric, self._goal = metric, goal
        self._known: dict[int, tuple[int, Standing]] = {}
        """Number -> the time of its folder, and what was found there."""

    def of(self, entry: Entry) -> Standing:
        """Where a trial stands now."""
        changed_ns, known = _changed_ns(entry), self._known.get(entry.number)
        if known is not None and known[0] == changed_ns:
            standing = known[1]
            return standing if standing.is_quiet else replace(standing, course=self.course(entry))
        now_ns, standing = time.time_ns(), self._look(entry)
        if changed_ns is not None and now_ns - changed_ns > SETTLED_NS:
            self._known[entry.number] = changed_ns, standing
        else:
            self._known.pop(entry.number, None)
        return standing

    def course(self, entry: Entry) -> Course:
        """A trial's validations now."""
        return course_of(entry.folder, self._metric, self._goal)

    def _look(self, entry: Entry) -> Standing:
        folder = entry.folder
        return Standing(
            _state(entry), folder.result.is_file(), folder.paused.is_file(), folder.has_checkpoints, self.course(entry)
        )


def _changed_ns(entry: Entry) -> int | None:
    try:
        return os.stat(entry.path).st_mtime_ns
    except OSError:
        return None


def _state(entry: Entry) -> str | None:
    try:
        result = entry.folder.read_result()
        return None if result is None else str(result["state"])
    except (CheckpointError, KeyError):  # cut short: the trial is run again
        return None
