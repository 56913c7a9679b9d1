"""Workers whose locks are not shared between machines are found when the second one starts."""

import threading
from pathlib import Path

import pytest

from danube_sweep.errors import ConfigError
from danube_sweep.storage import worker_locks
from danube_sweep.storage.ownership import Kind, is_our_name
from danube_sweep.storage.worker_locks import FOLDER, worker_present


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_locks, "BEAT_S", 0.02)
    monkeypatch.setattr(worker_locks, "WATCHED_S", 1.0)


def test_workers_that_see_each_others_locks_share_a_sweep_and_leave_nothing(tmp_path: Path) -> None:
    with worker_present(tmp_path, host="a"), worker_present(tmp_path, host="b"):
        assert len(list((tmp_path / FOLDER).glob("*.lock"))) == 2
    assert not (tmp_path / FOLDER).exists()
    assert is_our_name(FOLDER, Kind.sweep)


def test_two_containers_with_one_name_and_process_number_share_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    with worker_present(tmp_path, host="pod"), worker_present(tmp_path, host="pod"):
        assert len(list((tmp_path / FOLDER).glob("pod_1-*.lock"))) == 2
    assert not (tmp_path / FOLDER).exists()


def test_a_live_worker_whose_lock_is_not_seen_ends_the_second_one_in_one_line(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "node1_17.lock").touch()  # locked on node1, as a file system without shared locks shows it
    ended = threading.Event()
    beats = threading.Thread(target=worker_locks._beat, args=(tmp_path / FOLDER / "node1_17.beat", ended))
    beats.start()
    try:
        while not (tmp_path / FOLDER / "node1_17.beat").exists():
            pass
        with (
            pytest.raises(
                ConfigError, match="a worker on node1 trains this sweep, and its locks are not seen on node2"
            ),
            worker_present(tmp_path, host="node2"),
        ):
            pytest.fail("it must not begin")
    finally:
        ended.set()
        beats.join()


def test_a_worker_that_holds_leases_too_is_no_reason_to_end_and_is_told(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "node1_17.lock").touch()
    ended = threading.Event()
    file = tmp_path / FOLDER / "node1_17.beat"
    beats = threading.Thread(target=worker_locks._beat, args=(file, ended, worker_locks._LEASES))
    beats.start()
    try:
        while not file.exists():
            pass
        with worker_present(tmp_path, host="node2", leases=True) as unseen:
            assert unseen == "node1"
        with pytest.raises(ConfigError, match=r"sweep\.workers=N"), worker_present(tmp_path, host="node2"):
            pytest.fail("without leases of its own it must not begin")
    finally:
        ended.set()
        beats.join()


def test_what_a_killed_worker_left_stops_nobody_and_goes(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "node1_17.lock").touch()
    (tmp_path / FOLDER / "node1_17.beat").write_text("4\n")
    with worker_present(tmp_path, host="node2"):
        assert [file.stem.split("_")[0] for file in (tmp_path / FOLDER).glob("*.lock")] == ["node2"]
    assert not (tmp_path / FOLDER).exists()
