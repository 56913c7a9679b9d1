"""A sweep on a disk that is full: it says so, waits for room, and ends with everything to be resumed."""

import errno
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
import sweeps
from rich.console import Console
from sweeps import Ran, run, seeds, warm_parent

from danube_sweep.errors import SweepFailed
from danube_sweep.storage.sweep_folder import attempts
from danube_sweep.sweeping.execute.attempt_records import EndedAttempt, Records
from danube_sweep.sweeping.execute.messages import Failed
from danube_sweep.sweeping.propose.next_trial import Claim, FolderSource
from danube_sweep.sweeping.start_sweep import PlannedSweep, run_sweep
from danube_sweep.terminal.screen import Terminal

WAITING = "nothing trains meanwhile: waiting sweep.disk_wait_s="


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warm_parent(tmp_path_factory.mktemp("warm")):
        yield


@pytest.fixture
def blocked(tmp_path: Path) -> tuple[PlannedSweep, Path]:
    """A sweep of two trials, and what keeps the second one's end from being written."""
    plan = sweeps.planned(tmp_path / "sweep", seeds(1, 2), "sweep.pack=1")
    obstacle = plan.folder.entries()[1].folder.attempts
    obstacle.mkdir()
    return plan, obstacle


class MakesRoom(io.StringIO):
    """A terminal at which somebody sits who makes room once the sweep says that it waits."""

    def __init__(self, obstacle: Path) -> None:
        super().__init__()
        self._obstacle = obstacle

    def write(self, text: str) -> int:
        if WAITING in text:
            shutil.rmtree(self._obstacle)
        return super().write(text)


def test_a_sweep_whose_last_end_cannot_be_written_ends_and_goes_on_where_it_was(
    blocked: tuple[PlannedSweep, Path],
) -> None:
    plan, obstacle = blocked
    ran = run(plan, hostile.instant, disk_wait_s=0)
    assert isinstance(ran.error, SweepFailed) and ran.error.exit_code == 1
    assert f"{obstacle} cannot be written" in str(ran.error)
    assert str(ran.error).endswith(f"free some space, then: danube-sweep resume {plan.folder.path}")
    assert ran.said.count(f"{WAITING}0 seconds for room") == 1
    assert len(ran.attempts(1)) == 1
    obstacle.rmdir()
    again = run(plan, hostile.instant)
    assert again.error is None and again.states() == ["finished", "finished"]
    assert sorted(hostile.lines(plan.folder.path, hostile.COUNT)) == [one.path.name for one in plan.folder.entries()]


def test_a_sweep_that_waits_goes_on_by_itself_once_there_is_room(blocked: tuple[PlannedSweep, Path]) -> None:
    plan, obstacle = blocked
    said = MakesRoom(obstacle)
    run_sweep(plan, Terminal(Console(file=said, width=500)), task=hostile.instant)
    ran = Ran(plan, said.getvalue(), None)
    assert f"{WAITING}60 seconds" in ran.said
    assert ran.states() == ["finished", "finished"] and [len(ran.attempts(number)) for number in (1, 2)] == [1, 1]


def test_an_end_is_on_record_once_however_often_the_next_write_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial without memory whose smaller micro-batch finds no room."""
    plan = sweeps.planned(tmp_path / "sweep", seeds(1))
    source = FolderSource(plan.folder, [])
    claim = source.claim()
    assert claim is not None
    records = Records(source, plan.sweep, sweeps.quiet()[0], 1, lambda *_: None)
    shrinks: list[object] = [OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full"), False]

    def shrink(_claim: Claim) -> object:
        found = shrinks.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(records, "_shrink", shrink)
    oom = Failed("oom", "no memory")
    records.add(EndedAttempt(claim, 0, "now", 1.0, 1, oom, None, stopped=False, kernel_killed=False))
    for _ in range(3):
        records.settle()
    assert shrinks == [] and [one.state for one in attempts(claim.entry.folder)] == ["oom"]
