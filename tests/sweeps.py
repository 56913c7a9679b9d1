"""Sweeps of tiny trials, run in this process with a task of the test's choice, and what they leave behind."""

import io
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import hostile
import pytest
import runs
from conftest import TINY
from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import Verdict
from danube_sweep.errors import Interrupted, SweepFailed
from danube_sweep.storage.sweep_folder import Attempt, Entry, attempts
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Job, Stepped, Validated
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_grid, run_sweep
from danube_sweep.terminal.screen import Terminal

Task = Callable[[Job, Any], None]
SHORT = ["data.rows=50", "trainer.max_steps=4", "trainer.validate_every=2", "sweep.stagger_s=0", "sweep.baseline=none"]


@dataclass
class Ran:
    """A sweep that was run, and what it said."""

    plan: PlannedSweep
    said: str
    error: Exception | None

    def __getitem__(self, number: int) -> Entry:
        return next(entry for entry in self.plan.folder.entries() if entry.number == number)

    def result(self, number: int) -> dict[str, Any] | None:
        return self[number].folder.read_result()

    def attempts(self, number: int) -> list[Attempt]:
        return attempts(self[number].folder)

    def states(self) -> list[str | None]:
        results = [entry.folder.read_result() for entry in self.plan.folder.entries()]
        return [None if result is None else result["state"] for result in results]


def planned(path: Path, cells: list[list[str]], *settings: str) -> PlannedSweep:
    found = plan_grid(path, [[*TINY, *SHORT, *settings, *cell] for cell in cells], Composer(), quiet()[0])
    assert found is not None
    return found[0]


def quiet() -> tuple[Terminal, io.StringIO]:
    said = io.StringIO()
    return Terminal(Console(file=said, width=500)), said


def run(plan: PlannedSweep, task: Task = child_process.train_task, **settings: Any) -> Ran:
    terminal, said = quiet()
    error: Exception | None = None
    try:
        run_sweep(replace(plan, sweep=replace(plan.sweep, **settings)), terminal, task=task)
    except (SweepFailed, Interrupted) as ended:
        error = ended
    return Ran(plan, said.getvalue(), error)


def on_ranks(config: Config, folder: Path, count: int, *, stop_at: int = 0) -> int:
    """Trains the trial by so many processes and returns the exit code; asks for a stop after a step."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "log.txt"
    job = Job(folder, Path.cwd(), dict(os.environ), config, log=log, ranks=({},) * count)
    child = Pool(on_cpu=True).start(child_process.train_task, job)
    lives = True
    while lives:
        wait(child.places(), 0.5)
        child.watch_ranks()
        lives = child.process.is_alive()
        while (message := child.hear()) is not None:
            if isinstance(message, Validated):
                child.tell(Verdict.go_on)
            if isinstance(message, Stepped) and message.step == stop_at:
                child.ask_to_stop()
    return child.reap()


def numbers(folder: Path) -> list[float]:
    """The losses of every step and every validation."""
    rows = [*runs.metrics(folder, "train"), *runs.metrics(folder, "validation")]
    return [float(row.get("loss") or row["log_loss"]) for row in rows]


def seeds(*numbers: int) -> list[list[str]]:
    return [[f"seed={number}"] for number in numbers]


def left_over(pids: list[str]) -> list[str]:
    """Those of the processes, and of all in their sessions, that still live ten seconds later."""
    sessions = [stat.rpartition(")")[2].split()[3] in pids and stat.split(" ", 1)[0] for stat in stats()]
    return [pid for pid in [*pids, *filter(None, sessions)] if not gone(int(pid))]


def gone(pid: int, within_s: float = 10.0) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def stats() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield file.read_text()


@contextmanager
def warm_parent(folder: Path) -> Iterator[None]:
    """A warm parent for all sweeps of this process, so that none waits for it while a clock runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(folder))
        Pool(on_cpu=True).start(hostile.instant, Job(folder, Path.cwd(), dict(os.environ))).reap()
        yield
