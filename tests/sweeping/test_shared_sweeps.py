"""Workers that share a sweep by leases: each trial once, and a worker that comes back late loses its trial."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from runs import command
from sweeps import planned, run, seeds, warm_parent
from test_cluster import until
from test_executor import grid, own_process

from danube_sweep.config.schema import Lock, Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.storage.locks import Terms, set_terms, terms_of
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.shared_sweep import settle_locks


@pytest.fixture(scope="module", autouse=True)
def one_warm_parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warm_parent(tmp_path_factory.mktemp("warm")):
        yield


def test_eight_workers_without_shared_locks_end_200_trials_each_once(tmp_path: Path) -> None:
    grid(tmp_path, range(200))
    set_terms(tmp_path, Terms(only=True, lease_s=60.0))
    apart, together = "leave_network(); claim_all(path)", "claim_all(path)"
    workers = [own_process(apart if number % 2 else together, tmp_path) for number in range(8)]
    assert [one.wait() for one in workers] == [0] * 8
    ended = [attempts(entry.folder) for entry in SweepFolder(tmp_path).entries()]
    assert [len(one) for one in ended] == [1] * 200
    assert len({one.host for (one,) in ended}) > 1, "one worker took them all"


def test_a_worker_that_hangs_and_comes_back_loses_its_trial_and_writes_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path / "sweep", seeds(1), "sweep.lock=lease", "sweep.lease_s=2", "sweep.pack=1")
    folder = plan.folder.entries()[0].folder
    hung = own_process("share(path, hangs_with_its_sweep)", plan.folder.path)
    (trial,) = map(int, until(lambda: hostile.lines(plan.folder.path, hostile.PIDS)))
    try:
        until(lambda: all(stopped(pid) for pid in (hung.pid, trial)))
        ran = run(plan)
        assert ran.error is None and ran.states() == ["finished"]
        assert "sweep.lock=lease: trials of a worker that dies come free after sweep.lease_s=2 s" in ran.said
        before = content(folder.path)
    finally:
        for pid in (trial, hung.pid):
            os.kill(pid, signal.SIGCONT)
    assert hung.wait(timeout=120) == 0
    after = content(folder.path)
    assert b"was taken over by another process" in after.pop("log.txt") and before.pop("log.txt")
    assert after == before
    assert [one.state for one in attempts(folder)] == ["finished"]


def test_a_trial_that_its_dead_pack_had_lost_starts_again_only_when_it_is_free(tmp_path: Path) -> None:
    plan = planned(tmp_path / "sweep", seeds(1, 2), "sweep.lock=lease", "sweep.lease_s=2", "sweep.pack=2")
    ran = run(plan, hostile.loses_a_trial_and_dies)
    assert ran.error is None and ran.states() == ["finished", "finished"]
    lost, other = (entry.path.name for entry in plan.folder.entries())
    assert f"{lost}  lost: another worker took it over" in ran.said
    begun = hostile.lines(plan.folder.path, hostile.COUNT)
    assert begun == [f"{other} held", other, f"{lost} held", lost]
    assert [one.state for one in ran.attempts(1)] == ["finished"]
    assert [one.state for one in ran.attempts(2)] == ["interrupted", "finished"]


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the leases, which are whoever's turn it is."""
    files = [file for file in folder.rglob("*") if file.is_file() and ".lease-" not in file.name]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_sweep_of_several_workers_has_leases_from_its_first_lock(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    settle_locks(folder, Sweep())
    settle_locks(folder, Sweep(workers=4, lock=Lock.flock))
    assert not folder.path.exists()
    settle_locks(folder, Sweep(workers=4))
    assert terms_of(folder.path) == Terms(only=False, lease_s=60.0)
    settle_locks(folder, Sweep(lock=Lock.lease, lease_s=30.0))
    settle_locks(folder, Sweep(workers=4, lease_s=30.0))
    assert terms_of(folder.path) == Terms(only=True, lease_s=30.0), "a file system without locks stays one"
    flock = Sweep(workers=4, lock=Lock.flock)
    said = r"sweep\.lock=flock: the workers of .* hold leases; leave it out, or end them all and delete leases\.json$"
    with pytest.raises(ConfigError, match=said):
        settle_locks(folder, flock)
    (folder.path / "leases.json").unlink()
    settle_locks(folder, flock)
    with folder.locked():
        assert terms_of(folder.path) is None, "locks of the kernel alone"


def test_a_mistake_in_the_settings_of_leases_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    said = command("-m", "sweep.lock=lease", "sweep.lease_s=1", "seed=0,1", "hydra.sweep.dir=s", cwd=tmp_path).stderr
    assert "sweep.lease_s must be at least 2 seconds, got 1" in said
    said = command("-m", "sweep.lock=soft", "seed=0,1", "hydra.sweep.dir=s", cwd=tmp_path).stderr
    assert "sweep.lock" in said and "lease" in said and not (tmp_path / "s").exists()
