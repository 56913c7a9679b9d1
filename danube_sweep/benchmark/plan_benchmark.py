"""How long tasks take over a model, before anything is loaded; and the time left, corrected by what was measured."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from danube_sweep.benchmark.find_tasks import check_names
from danube_sweep.benchmark.scored_parts import tasks_dir, tasks_of_trial
from danube_sweep.benchmark.task_requests import Amount, requests_of
from danube_sweep.config.schema import Config
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.planner.benchmark_rows import benchmark_rows
from danube_sweep.planner.benchmark_seconds import BenchmarkSeconds, Requests, benchmark_seconds, together
from danube_sweep.terminal.screen import LINE_EVERY_S, human


@dataclass(frozen=True)
class PlannedTask:
    """One pass over a task: its requests and its seconds, or why nobody knows them."""

    name: str
    requests: Requests | None = None
    seconds: BenchmarkSeconds | None = None
    unknown: str | None = None


@dataclass(frozen=True)
class BenchmarkPlan:
    """Passes over tasks, one after the other."""

    passes: Sequence[PlannedTask]

    @property
    def seconds(self) -> BenchmarkSeconds:
        """Of the passes that are known."""
        return together(one.seconds for one in self.passes if one.seconds is not None)

    @property
    def unknown(self) -> dict[str, str]:
        """The tasks of unknown length, each with the reason."""
        return {one.name: one.unknown for one in self.passes if one.unknown is not None}

    def plain(self) -> dict[str, Any]:
        """For a file."""
        return {"likelihood": self.seconds.likelihood, "generation": self.seconds.generation, "unknown": self.unknown}

    def said(self) -> str:
        """`about 12 min (scored prompts 9 min, generated answers at most 3 min)`."""
        found, words = self.seconds, []
        if found.total:
            kinds = [f"scored prompts {human(found.likelihood)}"] * bool(found.likelihood)
            kinds += [f"generated answers at most {human(found.generation)}"] * bool(found.generation)
            words.append(f"about {human(found.total)} ({', '.join(kinds)})")
        words += [f"unknown for {name}: {why}" for name, why in self.unknown.items()]
        return "; ".join(words)


def plan_tasks(
    config: Config, names: Sequence[str], folder: Path | None, amount: Amount, batch_rows: int
) -> BenchmarkPlan:
    """A pass over each task in turn; loads nothing. Raises ModelError for a model folder that cannot be read."""
    return BenchmarkPlan([_planned(config, name, requests_of(name, folder, amount), batch_rows) for name in names])


def _planned(config: Config, name: str, asked: Requests | None, batch_rows: int) -> PlannedTask:
    if asked is None:
        return PlannedTask(name, unknown="its items are not counted before they are loaded")
    try:
        return PlannedTask(name, asked, benchmark_seconds(config, asked, batch_rows=batch_rows))
    except UnknownArchitecture as error:
        return PlannedTask(name, asked, unknown=str(error))


def plan_trial(config: Config) -> BenchmarkPlan | None:
    """One pass over the tasks that a trial scores; None without any.

    Raises ConfigError for an unknown task, ModelError for a model folder that cannot be read.
    """
    names, folder = tasks_of_trial(config), tasks_dir(config)
    if not names:
        return None
    check_names(names, folder)
    return plan_tasks(config, names, folder, Amount(config.trainer.benchmark_limit), benchmark_rows(config))


@final
class TimeLeft:
    """Prints the time left of a plan: the planned seconds, times measured over planned ones so far."""

    def __init__(
        self, plan: BenchmarkPlan, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._waiting = list(plan.passes)
        self._planned_s = self._measured_s = 0.0
        self._begun_s = self._said_s = clock()
        self._task: PlannedTask | None = None
        self._tokens = 0.0

    def began(self, name: str) -> None:
        """The next pass over a task begins."""
        self._task = next(one for one in self._waiting if one.name == name)
        self._waiting.remove(self._task)
        self._tokens = 0.0
        self._begun_s = self._said_s = self._clock()

    def passed(self, tokens: int) -> None:
        """So many tokens of prompts went through the model. Prints a line every ten seconds."""
        self._tokens += tokens
        now = self._clock()
        if self._task is None or self._task.seconds is None or now - self._said_s < LINE_EVERY_S:
            return
        self._said_s = now
        self._say(f"{self._task.name}: {self._share(self._task):.0%}, {self._left(now)} left")

    def ended(self, *, whole: bool) -> None:
        """The pass has ended. One that is not `whole` corrects nothing."""
        assert self._task is not None
        task, now = self._task, self._clock()
        self._task, took = None, now - self._begun_s
        if not whole:
            return
        planned = "" if task.seconds is None else f", planned {human(task.seconds.total)}"
        if task.seconds is not None:
            self._planned_s += task.seconds.total
            self._measured_s += took
        left = f"; {self._left(now)} left" if any(one.seconds for one in self._waiting) else ""
        self._say(f"{task.name}: took {human(took)}{planned}{left}")

    def _share(self, task: PlannedTask) -> float:
        return 0.0 if task.requests is None else min(1.0, self._tokens / max(task.requests.tokens, 1))

    def _left(self, now: float) -> str:
        done, spent = self._planned_s, self._measured_s
        left = sum(one.seconds.total for one in self._waiting if one.seconds is not None)
        if self._task is not None and self._task.seconds is not None:
            share, planned_s = self._share(self._task), self._task.seconds.total
            done, spent = done + share * planned_s, spent + now - self._begun_s
            left += (1 - share) * planned_s
        return human(left * (spent / done if done > 0 else 1.0))
