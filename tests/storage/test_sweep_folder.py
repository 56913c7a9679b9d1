"""The sweep folder: each trial once, numbered, named by what it varies, and safe from what is in the names."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm
from conftest import tiny_config

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Attempt, Entry, SweepFolder, append_attempt, attempts

Trial = tuple[Config, list[str], int | None]


def trial(seed: int, *overrides: str, draw: int | None = None) -> Trial:
    config = tiny_config()
    config.seed = seed
    return config, [*overrides] or [f"seed={seed}"], draw


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "sweep")


# ------------------------------------------------------------------------------------------------------ trials


def test_a_trial_has_its_number_its_name_and_its_config(folder: SweepFolder) -> None:
    with folder.locked():
        [(entry, new)] = folder.add([trial(3, "tracking=none", "lora.rank=4", "seed=3", draw=7)], ["tracking=none"])
    config = trial(3)[0]
    assert new and entry.number == 1 and entry.hash == trial_hash(config) and entry.draw == 7
    assert entry.path == folder.path / f"001_rank-4_seed-3_{entry.hash[:8]}"
    assert entry.overrides == ["tracking=none", "lora.rank=4", "seed=3"]
    assert load_config(entry.folder.config) == config
    assert folder.entries() == [entry]


def test_the_same_trial_is_added_once_in_whatever_words(folder: SweepFolder) -> None:
    with folder.locked():
        added = folder.add([trial(0), trial(1), trial(0, "seed=0", "name=again")])
        again = folder.add([trial(1), trial(2)])
    assert [(entry.number, new) for entry, new in added] == [(1, True), (2, True), (1, False)]
    assert [(entry.number, new) for entry, new in again] == [(2, False), (3, True)]
    assert [entry.number for entry in folder.entries()] == [1, 2, 3]


def test_a_larger_grid_keeps_the_numbers_of_the_smaller_one(folder: SweepFolder) -> None:
    with folder.locked():
        folder.add([trial(1), trial(3)])
        folder.add([trial(seed) for seed in range(5)])
    assert [(entry.number, entry.overrides) for entry in folder.entries()] == [
        (1, ["seed=1"]), (2, ["seed=3"]), (3, ["seed=0"]), (4, ["seed=2"]), (5, ["seed=4"])
    ]  # fmt: skip


def test_a_thousand_trials_stay_in_their_order(folder: SweepFolder) -> None:
    folder.path.mkdir()
    for number in (999, 1000, 2, 10):
        folder._add(Entry(number, f"{number:032x}", [], folder.path / f"{number:03d}"))
    assert [entry.number for entry in folder.entries()] == [2, 10, 999, 1000]
    with folder.locked():
        [(entry, _)] = folder.add([trial(0)])
    assert entry.number == 1001


def test_a_cell_with_a_mistake_is_added_once_with_its_result(folder: SweepFolder) -> None:
    cells = [(["lora.rank=0"], "lora.rank must be at least 1"), (["lora.rank=-1"], "lora.rank must be at least 1")]
    with folder.locked():
        folder.add([trial(0)])
        added = folder.add_invalid([*cells, cells[0]])
        again = folder.add_invalid(cells[:1])
    assert [entry.number for entry in added] == [2, 3, 2] and [entry.number for entry in again] == [2]
    assert [entry.path.name for entry in added[:2]] == ["002_rank-0_invalid", "003_rank--1_invalid"]
    assert added[0].hash is None and not added[0].folder.config.exists()
    wrong = {"state": "invalid", "error": "lora.rank must be at least 1", "left_out": False}
    assert added[0].folder.read_result() == wrong
    with folder.locked():
        assert folder.add([trial(1)])[0][0].number == 4


def test_a_secret_in_a_config_is_not_written_down(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    config, overrides, draw = trial(0, "name=correct-horse-battery")
    config.name = "correct-horse-battery"
    with folder.locked():
        [(entry, _)] = folder.add([(config, overrides, draw)], overrides)
    written = [file.read_text() for file in folder.path.rglob("*") if file.is_file()]
    assert not any("correct-horse-battery" in text for text in written)
    assert "<MY_API_KEY>" in entry.folder.config.read_text() and "<MY_API_KEY>" in entry.folder.trial.read_text()


# ------------------------------------------------------------------------------------------------------- names


def test_a_long_name_is_cut_and_still_one_folder_of_its_own(folder: SweepFolder) -> None:
    long = "x" * 5000
    with folder.locked():
        (first, _), (second, _) = folder.add([trial(0, f"name={long}"), trial(1, f"name={long}")])
    assert len(first.path.name) < 100 and first.path != second.path
    assert [entry.overrides for entry in folder.entries()] == [[f"name={long}"]] * 2


@pytest.mark.parametrize(
    "word", ["name=../../x", "name=..", "data.path=/etc/passwd", "a/../../b=c", "name=..%2f..", "name=x\0y"]
)
def test_no_name_leads_out_of_the_sweep(folder: SweepFolder, word: str) -> None:
    with folder.locked():
        [(entry, _)] = folder.add([trial(0, word)])
    assert entry.path.resolve().parent == folder.path.resolve()
    assert sorted(path.name for path in folder.path.parent.iterdir()) == ["sweep"]
    assert folder.entries() == [entry]


# ------------------------------------------------------------------------------------------------------ damage


def test_a_folder_without_its_trial_json_is_no_trial_yet_and_is_taken_again(folder: SweepFolder) -> None:
    with folder.locked():
        [(entry, _)] = folder.add([trial(0)])
        entry.folder.trial.unlink()  # as if the process had died just before
        assert folder.entries() == []
        assert folder.add([trial(0)]) == [(entry, True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1, "numb', "Unterminated string"),
        ("", "Expecting value"),
        ("[" * 3000, "nested too deeply"),
        ("[]", "it holds no object"),
        ('{"format": 1}', "overrides"),
        ('{"number": 1, "hash": "x", "overrides": []}', "format"),
        ('{"format": 1, "number": "1", "hash": "x", "overrides": []}', "number='1'"),
        ('{"format": 1, "number": 1, "hash": "x", "overrides": [], "more": 3}', "more"),
        ('{"format": 2, "number": 1, "hash": "x", "overrides": []}', "it is from another version"),
    ],
)
def test_a_trial_whose_trial_json_is_damaged_is_told_apart_and_keeps_its_number(
    folder: SweepFolder, text: str, said: str
) -> None:
    with folder.locked():
        (first, _), (second, _) = folder.add([trial(0), trial(1)])
        second.folder.trial.write_text(text)
        assert folder.entries() == [first]
        [damaged] = folder.damaged()
        assert damaged.path == second.path and said in damaged.reason and "\n" not in damaged.reason
        assert folder.add([trial(2)])[0][0].number == 3


def test_what_a_reader_does_to_an_entry_is_nobody_elses(folder: SweepFolder) -> None:
    with folder.locked():
        folder.add([trial(0)])
    folder.entries()[0].overrides.append("lora.rank=4")
    assert folder.entries()[0].overrides == ["seed=0"]


OPENED: list[str] = []
"""Every trial.json that this process has opened; a hook cannot be taken out again, so there is one."""


def note_trial_files(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith("trial.json"):
        OPENED.append(Path(arguments[0]).parent.name)


@pytest.fixture(scope="session")
def opened() -> list[str]:
    sys.addaudithook(note_trial_files)
    return OPENED


def write_trial(folder: SweepFolder, number: int, **described: Any) -> None:
    path = folder.path / f"{number:03d}"
    path.mkdir(parents=True, exist_ok=True)
    stated = {"format": 1, "number": number, "hash": f"{number:032x}", "overrides": [f"seed={number}"], "draw": None}
    write_json(path / "trial.json", {**stated, **described})


def test_a_trial_is_read_once_however_often_a_sweep_of_300_is_asked(folder: SweepFolder, opened: list[str]) -> None:
    for number in range(1, 301):
        write_trial(folder, number)
    opened.clear()
    first = folder.entries()
    assert [entry.number for entry in first] == list(range(1, 301)) and len(opened) == 300
    assert folder.entries() == first == SweepFolder(folder.path).entries()
    assert len(opened) == 300


def test_what_another_process_adds_changes_and_takes_away_is_seen(folder: SweepFolder, opened: list[str]) -> None:
    for number in (1, 2, 3):
        write_trial(folder, number)
    assert len(folder.entries()) == 3
    opened.clear()
    write_trial(folder, 2, hash="f" * 32)  # of the same length
    write_trial(folder, 4)
    (folder.path / "003" / "trial.json").unlink()
    assert [(entry.number, (entry.hash or "")[-1]) for entry in folder.entries()] == [(1, "1"), (2, "f"), (4, "4")]
    assert sorted(opened) == ["002", "004"]


def test_a_damaged_trial_json_that_is_mended_is_read_again(folder: SweepFolder) -> None:
    write_trial(folder, 1)
    file = folder.path / "001" / "trial.json"
    text = file.read_text()
    file.write_text(text[:-9])
    assert folder.entries() == []
    file.write_text(text)
    assert [entry.number for entry in folder.entries()] == [1]


def test_a_sweep_knows_what_it_was_given(folder: SweepFolder) -> None:
    with folder.locked():
        folder.write({"settings": {"sweep": {"slots": 2}}, "search": None})
    assert folder.read() == {"settings": {"sweep": {"slots": 2}}, "search": None}
    assert json.loads(folder.file.read_text())["format"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"is no sweep: it has no sweep\.json"),
        ('{"format": 1,', r"sweep\.json is cut short or damaged"),
        ('{"format": 2}', r"sweep\.json is from another version of danube_sweep; start the sweep in a new folder"),
        ("{}", r"sweep\.json is from another version"),
        ("[]", r"sweep\.json is cut short or damaged"),
    ],
)
def test_a_folder_that_is_no_sweep_of_ours_is_one_line(folder: SweepFolder, text: str | None, said: str) -> None:
    folder.path.mkdir()
    if text is not None:
        folder.file.write_text(text)
    with pytest.raises(CheckpointError, match=said) as raised:
        folder.read()
    assert "\n" not in str(raised.value)


def test_a_trial_that_a_full_disk_does_not_take_leaves_no_folder(folder: SweepFolder) -> None:
    with folder.locked():
        folder.add([trial(0)])
        before = sorted(os.listdir(folder.path))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))  # room for a marker, and none for a config
        try:
            with pytest.raises(DiskError, match=r"config\.yaml cannot be written: File too large"):
                folder.add([trial(1)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert sorted(os.listdir(folder.path)) == before
        [(entry, new)] = folder.add([trial(1)])
    assert (entry.number, new) == (2, True)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(DiskError, match="cannot be written: Not a directory; choose another folder"):
        SweepFolder(tmp_path / "occupied" / "sweep").locked().__enter__()
    with pytest.raises(DiskError, match="cannot be written: File exists; choose another folder"):
        SweepFolder(tmp_path / "occupied").locked().__enter__()


# ----------------------------------------------------------------------------------------------------- the lock

HOLDER = """
import sys
from pathlib import Path
from danube_sweep.storage.sweep_folder import SweepFolder
with SweepFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    held = warm.popen("-c", HOLDER, path, stdin=subprocess.PIPE)
    assert held.stdout is not None and held.stdout.readline() == "held\n"
    return held


def test_one_process_at_a_time_adds_trials(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = holder(folder.path)
    monkeypatch.setattr("danube_sweep.storage.sweep_folder.LOCK_TIMEOUT_S", 0.0)
    with pytest.raises(CheckpointError, match="is locked by another process; wait for it or stop it"):
        folder.locked().__enter__()
    held.communicate("done\n")
    with folder.locked():
        pass


def test_a_killed_process_leaves_no_lock(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = holder(folder.path)
    os.kill(held.pid, signal.SIGKILL)
    held.communicate()
    monkeypatch.setattr("danube_sweep.storage.sweep_folder.LOCK_TIMEOUT_S", 0.0)
    with folder.locked():
        pass


ADDER = """
import sys
from pathlib import Path
from danube_sweep.composer import compose
from danube_sweep.storage.sweep_folder import SweepFolder
folder, config = SweepFolder(Path(sys.argv[1])), compose(["tracking=none"])
print("ready", flush=True)
sys.stdin.readline()
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
    config.seed = seed
    with folder.locked():
        folder.add([(config, [f"seed={seed}"], None)])
"""


def test_two_processes_add_each_trial_once(folder: SweepFolder) -> None:
    adders = [warm.popen("-c", ADDER, folder.path, first, stdin=subprocess.PIPE) for first in (0, 5)]
    for adder in adders:
        assert adder.stdout is not None and adder.stdout.readline() == "ready\n"
    for adder in adders:
        assert adder.stdin is not None
        adder.stdin.write("go\n")
        adder.stdin.flush()
    assert [adder.communicate()[1] for adder in adders] == ["", ""]
    entries = folder.entries()
    assert [entry.number for entry in entries] == list(range(1, 16))
    assert len({entry.hash for entry in entries}) == 15


# ----------------------------------------------------------------------------------------------------- attempts


def test_every_attempt_is_a_line_and_half_a_line_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert attempts(run) == []
    first = Attempt("killed", 3.5, "2026-01-01T00:00:00", "host", -9, "ended by SIGKILL")
    second = Attempt("finished", 7.25, "2026-01-01T00:01:00", "host", 0)
    append_attempt(run, first)
    append_attempt(run, second)
    assert attempts(run) == [first, second]
    with run.attempts.open("a") as stream:
        stream.write('{"state": "fini')
    assert attempts(run) == [first, second]
    run.attempts.write_text('{"state": "killed"}\n3\nnull\n\n' + json.dumps(vars(second)) + "\n")
    assert attempts(run) == [second]


def test_an_attempt_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"attempts\.jsonl cannot be written"):
        append_attempt(RunFolder(tmp_path / "nowhere"), Attempt("killed", 0.0, "", ""))


def test_an_attempts_words_hide_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "correct-horse-battery")
    said: dict[str, Any] = {"reason": 'no such file: "correct-horse-battery"'}
    append_attempt(RunFolder(tmp_path), Attempt("failed", 0.0, "", "", 1, **said))
    [attempt] = attempts(RunFolder(tmp_path))
    assert attempt.reason == 'no such file: "<MY_TOKEN>"'


def test_a_sweep_that_is_interrupted_while_trials_are_added_leaves_nothing(folder: SweepFolder) -> None:
    with pytest.raises(KeyboardInterrupt), folder.locked(), folder.whole_or_as_before():
        folder.add([trial(0), trial(1)])
        raise KeyboardInterrupt
    assert not folder.path.exists()


def test_trials_that_were_there_before_stay_after_an_interruption(folder: SweepFolder) -> None:
    with folder.locked():
        folder.add([trial(0)])
    with pytest.raises(KeyboardInterrupt), folder.locked(), folder.whole_or_as_before():
        folder.add([trial(1)])
        raise KeyboardInterrupt
    assert [entry.overrides for entry in folder.entries()] == [["seed=0"]]


def test_a_reason_may_hold_what_splits_lines_of_unicode(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    told = [Attempt("failed", 1.0, "2026-01-01T00:00:00", "host", 1, text) for text in ("one\u2028two", "a\x85b", "c")]
    for one in told:
        append_attempt(run, one)
    assert attempts(run) == told
