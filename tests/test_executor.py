"""Sweeps go on to their end, whatever their trials and the people around them do."""

import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hostile
import pytest
from conftest import TINY, tiny_config
from rich.console import Console
from runs import start

from danube_sweep.compose import Composer
from danube_sweep.errors import Interrupted, SweepFailed
from danube_sweep.progress import Terminal
from danube_sweep.schema import Config, OnOom, Sweep
from danube_sweep.sweep import child
from danube_sweep.sweep.child import Failed, Job
from danube_sweep.sweep.folder import Attempt, Entry, SweepFolder, attempts
from danube_sweep.sweep.front import Plan, plan_grid, run_plan
from danube_sweep.sweep.outcome import last_lines, outcome
from danube_sweep.sweep.place import fresh_sweep_dir
from danube_sweep.sweep.pool import Pool
from danube_sweep.trial import RunFolder

Task = Callable[[Job, Any], None]
SHORT = ["data.rows=50", "trainer.max_steps=4", "trainer.validate_every=2", "sweep.stagger_s=0"]


@dataclass
class Ran:
    """A sweep that was run, and what it said."""

    folder: SweepFolder
    said: str
    error: Exception | None

    def __getitem__(self, number: int) -> Entry:
        return next(entry for entry in self.folder.entries() if entry.number == number)

    def result(self, number: int) -> dict[str, Any] | None:
        return self[number].folder.read_result()

    def attempts(self, number: int) -> list[Attempt]:
        return attempts(self[number].folder)

    def states(self) -> list[str | None]:
        results = [entry.folder.read_result() for entry in self.folder.entries()]
        return [None if result is None else result["state"] for result in results]


def planned(path: Path, cells: list[list[str]], *settings: str) -> Plan:
    found = plan_grid(path, [[*TINY, *SHORT, *settings, *cell] for cell in cells], Composer(), quiet()[0])
    assert found is not None
    return found[0]


def quiet() -> tuple[Terminal, io.StringIO]:
    said = io.StringIO()
    return Terminal(Console(file=said, width=500)), said


def run(plan: Plan, task: Task = child.train, **settings: Any) -> Ran:
    terminal, said = quiet()
    error: Exception | None = None
    try:
        run_plan(replace(plan, sweep=replace(plan.sweep, **settings)), terminal, task=task)
    except (SweepFailed, Interrupted) as ended:
        error = ended
    return Ran(plan.folder, said.getvalue(), error)


def seeds(*numbers: int) -> list[list[str]]:
    return [[f"seed={number}"] for number in numbers]


def left_over(pids: list[str]) -> list[str]:
    """Those of the processes that still live, and what still lives in their sessions, ten seconds later."""
    return [pid for pid in pids if not gone(int(pid))] + [
        stat.split(" ", 1)[0] for stat in stats() if stat.rpartition(")")[2].split()[3] in pids
    ]


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


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A warm parent for all sweeps of this process, so that none waits for it while a clock runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("warm")
        patch.setenv("DANUBE_SWEEP_CACHE", str(folder))
        Pool(on_cpu=True).start(hostile.instant, Job(folder, Path.cwd(), dict(os.environ))).reap()
        yield


# -------------------------------------------------------------------------------------------------- hostile trials

GOOD = [*range(21, 35), 101, 102]


@pytest.fixture(scope="module")
def mixed(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A sweep with 11 hostile trials among 16 good ones, two at a time."""
    cells = seeds(*hostile.HOSTILE, *GOOD)
    cells[1].append("optimizer.lr=1e30")
    plan = planned(tmp_path_factory.mktemp("mixed"), cells, "sweep.slots=2")
    return run(plan, hostile.mixed)


def test_every_good_trial_finishes_among_hostile_ones(mixed: Ran) -> None:
    assert mixed.states()[len(hostile.HOSTILE) :] == ["finished"] * len(GOOD)
    assert isinstance(mixed.error, SweepFailed)
    assert str(mixed.error).startswith(f"{len(hostile.HOSTILE)} of {len(hostile.HOSTILE) + len(GOOD)} trials")


@pytest.mark.parametrize("number", hostile.HOSTILE, ids=lambda number: hostile.HOSTILE[number][0].__name__)
def test_a_hostile_trial_ends_in_its_own_state(mixed: Ran, number: int) -> None:
    _, state, reason = hostile.HOSTILE[number]
    (attempt,) = mixed.attempts(number)
    assert attempt.state == state
    assert reason in str(attempt.reason)
    result = mixed.result(number)
    if state == "preempted":  # it goes on from its checkpoint
        assert result is None
        assert [*mixed[number].folder.checkpoints.glob("step-*")]
    else:
        assert result is not None
        assert (result["state"], result["error"]) == (state, attempt.reason)
    assert f"{mixed[number].path.name}  {state}" in mixed.said


def test_the_last_lines_of_a_trial_without_a_word_of_its_own_are_kept(mixed: Ran) -> None:
    said = {number: "\n".join((mixed.result(number) or {}).get("last_lines", [])) for number in (3, 5, 6)}
    assert "Segmentation fault" in said[3]
    assert "the last line of who left" in said[5]
    assert said[6].endswith("ValueError: no such thing")


def test_nothing_of_any_trial_lives_on(mixed: Ran) -> None:
    pids = hostile.lines(mixed.folder.path, hostile.PIDS)
    assert len(pids) == len(hostile.HOSTILE) + len(GOOD) + 1  # and what one of them has started
    assert not left_over(pids)


def test_what_failed_is_run_again_when_asked_and_what_was_preempted_unasked(mixed: Ran, tmp_path: Path) -> None:
    folder = SweepFolder(Path(shutil.copytree(mixed.folder.path, tmp_path / "again")))
    before = {entry.number: entry.folder.result.stat().st_mtime_ns for entry in folder.entries()[11:]}
    again = run(Plan(folder, Sweep(retry=["failed", "killed"], score_test=False), pruner()), hostile_only_trains)
    assert again.states()[:11] == ["oom", "diverged", *["finished"] * 4, "disk_full", *["finished"] * 2, "oom", "finished"]
    assert [len(again.attempts(number)) for number in (1, 3, 8, 12)] == [1, 2, 2, 1]
    assert "resumed at step" in again[8].folder.log.read_text()
    assert before == {entry.number: entry.folder.result.stat().st_mtime_ns for entry in folder.entries()[11:]}
