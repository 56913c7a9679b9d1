"""A lease has one holder, passes on when its holder is gone, and is told to a holder that comes back."""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from danube_sweep.errors import BusyError, DiskError
from danube_sweep.storage import leases, locks
from danube_sweep.storage.files import whole_folder, write_text
from danube_sweep.storage.leases import Lease, free_if_expired, is_lease, is_live
from danube_sweep.storage.locks import FolderLock, Terms, is_held, set_terms
from danube_sweep.storage.ownership import Kind, is_our_name, remove_files

TERM_S = 100.0
FOREIGN = f"{TERM_S} node1 another-boot pid:[1] 17 4"
"""What a holder on another machine writes into its lease."""


class Clock:
    """The seconds that this process sees; a test lets them pass."""

    now_s = 1000.0

    def passes(self, seconds: float, *, looks: int = 1, at: Path) -> None:
        """So much later, with so many looks at the lease on the way."""
        for _ in range(looks):
            self.now_s += seconds / looks
            is_live(at, TERM_S)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(leases, "_now_s", lambda: found.now_s)
    monkeypatch.setattr(leases, "_seen", {})
    yield found
    for lease in leases._heart().held():
        lease.release()


def foreign(file: Path, number: int = 1) -> Path:
    path = file.parent / f".{file.name.lstrip('.')}.lease-{number}"
    path.write_text(FOREIGN)
    return path


def test_a_lease_has_one_holder_and_is_free_at_once_when_it_is_released(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".claim"
    first, second = Lease(file, TERM_S), Lease(file, TERM_S)
    assert first.take() and not second.take() and is_live(file, TERM_S)
    first.release()
    assert not is_live(file, TERM_S) and second.take()
    assert [one.name for one in tmp_path.iterdir()] == [".claim.lease-2"]


def test_a_lease_expires_when_this_process_saw_no_heartbeat_for_its_term(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".claim"
    foreign(file)
    assert is_live(file, 1.0), "seen for the first time, whatever its age is"
    clock.passes(TERM_S - 1, looks=5, at=file)
    assert is_live(file, 1.0)
    foreign(file, 2)  # a heartbeat
    clock.passes(TERM_S - 1, looks=5, at=file)
    assert is_live(file, 1.0)
    clock.passes(3, at=file)
    clock.passes(TERM_S, looks=5, at=file)
    assert not is_live(file, 1.0)
    assert Lease(file, TERM_S).take()


def test_a_lock_that_outlasts_leases_is_taken_from_a_holder_that_died_elsewhere(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_terms(tmp_path, Terms(only=True, lease_s=TERM_S))
    began_s = clock.now_s

    def passes(seconds: float) -> None:
        clock.now_s += 40 * seconds

    monkeypatch.setattr(time, "sleep", passes)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    foreign(tmp_path / ".test.lock")
    with pytest.raises(Timeout):
        FolderLock(tmp_path / ".test.lock", timeout_s=0).acquire()
    with FolderLock(tmp_path / ".test.lock", timeout_s=0, outlasts=True):
        assert TERM_S < clock.now_s - began_s < TERM_S + locks.EXPIRES_S
    beats = itertools.count(1)

    def beats_too(seconds: float) -> None:
        passes(seconds)
        foreign(tmp_path / ".lock", next(beats))

    foreign(tmp_path / ".lock", next(beats))
    monkeypatch.setattr(time, "sleep", beats_too)
    with pytest.raises(Timeout):
        FolderLock(tmp_path / ".lock", timeout_s=3 * TERM_S, outlasts=True).acquire()


def test_a_reader_that_did_not_look_for_a_whole_term_watches_anew(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".claim"
    foreign(file)
    is_live(file, TERM_S)
    clock.now_s += 10 * TERM_S  # this machine slept, and perhaps the holder's too
    assert is_live(file, TERM_S)
    clock.passes(TERM_S + 1, looks=5, at=file)
    assert not is_live(file, TERM_S)


def test_a_holder_that_was_taken_over_writes_nothing_more(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "trial"
    folder.mkdir()
    hung = Lease(folder / ".lock", TERM_S)
    assert hung.take()
    write_text(folder / "result.json", "by the holder")
    hung.beat()
    assert not hung.lost()
    (folder / ".lock.lease-2").unlink()
    foreign(folder / ".lock", 4)  # another process took it, and beat since
    assert not hung.lost(), "nobody can have taken it so soon after a heartbeat"
    clock.now_s += TERM_S
    assert hung.lost()
    with pytest.raises(BusyError, match="was taken over by another process"):
        write_text(folder / "result.json", "by who came back")
    with pytest.raises(BusyError), whole_folder(folder / "adapter"):
        pass
    assert (folder / "result.json").read_text() == "by the holder" and not (folder / "adapter").exists()
    write_text(tmp_path / "elsewhere", "as ever")
    hung.release()
    assert [one.name for one in folder.glob(".lock*")] == [".lock.lease-4"], "the other's lease is as it was"
    assert (folder / ".lock.lease-4").read_text() == FOREIGN


def test_a_heartbeat_needs_no_links_and_a_name_that_is_taken_ends_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    lease = Lease(tmp_path / ".claim", TERM_S)
    assert lease.take()
    lease.beat()
    assert [one.name for one in tmp_path.iterdir()] == [".claim.lease-2"] and not lease.lost()
    foreign(tmp_path / ".claim", 3)
    lease.beat()
    assert lease.lost()


def test_a_process_of_this_machine_that_died_holds_nothing(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".claim"
    path = foreign(file)
    path.write_text(f"{TERM_S} here {leases._machine()} {os.getpid()} 1")  # another process had our number before
    assert not is_live(file, TERM_S)
    path.write_text(f"{TERM_S} here {leases._this_process()}")
    assert is_live(file, TERM_S)


def test_of_many_that_see_an_expired_lease_one_takes_it(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".claim"
    for turn in range(20):
        foreign(file, 50 * turn + 1).write_text("free")
        ready, taken = threading.Barrier(8), []

        def grab(ready: threading.Barrier = ready, taken: list[Lease] = taken) -> None:
            lease = Lease(file, TERM_S)
            ready.wait()
            if lease.take():
                taken.append(lease)

        threads = [threading.Thread(target=grab) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        taken[0].release()


def test_an_expired_lease_is_marked_free_for_who_would_have_to_watch_it(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / ".lock"
    foreign(file)
    free_if_expired(file, TERM_S)
    assert is_live(file, TERM_S)
    clock.passes(TERM_S + 1, looks=5, at=file)
    free_if_expired(file, TERM_S)
    leases._seen.clear()
    assert not is_live(file, TERM_S)


def test_the_thread_keeps_a_lease_and_ends_with_the_last_one(tmp_path: Path) -> None:
    lease = Lease(tmp_path / ".claim", 0.1)
    assert lease.take()
    end_s = time.monotonic() + 30
    while leases._highest(tmp_path / ".claim") < 3:
        assert time.monotonic() < end_s, "no heartbeat"
        time.sleep(0.01)
    lease.release()
    while any(thread.name == "leases" for thread in threading.enumerate()):
        assert time.monotonic() < end_s, "the thread goes on"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ locks with leases


def test_locks_of_a_shared_sweep_are_both_and_of_one_without_locks_leases_alone(tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    trial.mkdir()
    lock = trial / ".lock"
    with FolderLock(lock):
        assert [one.name for one in trial.iterdir()] == [".lock"], "a sweep that is not shared has no leases"
    set_terms(tmp_path, Terms(only=False, lease_s=60.0))
    with FolderLock(lock), pytest.raises(Timeout):
        FileLock(lock, timeout=0).acquire()
    set_terms(tmp_path, Terms(only=True, lease_s=60.0))
    with FolderLock(lock):
        assert is_held(lock)
        with FileLock(lock, timeout=0):
            pass
        with pytest.raises(Timeout):
            FolderLock(lock, timeout_s=0).acquire()
    assert not is_held(lock)


def test_a_file_system_without_locks_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from danube_sweep.storage.sweep_folder import SweepFolder

    def none(*_: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(locks.FileLock, "acquire", none)
    told = r"its file system has no locks; give sweep\.lock=lease"
    with pytest.raises(DiskError, match=told), SweepFolder(tmp_path / "sweep").locked():
        pass


def test_leases_are_files_of_ours(tmp_path: Path) -> None:
    assert is_lease(".claim.lease-12") and not is_lease(".claim.lease-") and not is_lease("claim.lease-1")
    assert is_our_name(".history.lock.lease-3", Kind.sweep) and is_our_name(".lock.lease-3", Kind.run)
    assert is_our_name("leases.json", Kind.sweep)
    foreign(tmp_path / ".lock")
    remove_files(tmp_path, Kind.run)
    assert not tmp_path.exists()
