"""One fault, one kill in a save, one signal and one surrounding of benchmarks/siege, and that harm would be seen."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "siege"))

import faults
import hour
import saves
import signals
import surroundings
from scenes import SCENES, Ended, Scene, Stage, badly_ended, rows

SAVE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from danube_sweep.errors import DanubeSweepError
from danube_sweep.storage.files import remove_left_over, write_text
try:
    remove_left_over(Path("out.csv"))
    write_text(Path("out.csv"), "new")
except DanubeSweepError as error:
    print(f"danube-sweep: error: {{error}}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
SAVE_IN_PLACE = """
import sys
try:
    with open("out.csv", "wb", buffering=0) as stream:
        stream.write(b"new")
except OSError as error:
    sys.exit(f"danube-sweep: error: {error}")
"""


class ScriptStage(faults.FaultyStage):
    """A scene whose command is a short script, started without the stack."""

    def ended(self, *words: str, env: dict[str, str]) -> Ended:
        return super().ended(*words[2:], env=env)


def script_stage(code: str, place: Path, patch: pytest.MonkeyPatch) -> ScriptStage:
    library = faults.compiled(place)
    if library is None:
        pytest.skip("no C compiler (cc)")
    patch.setenv("CUDA_VISIBLE_DEVICES", "none")  # tests/warm.py forks nothing then
    patch.setenv("LD_PRELOAD", str(library))
    return ScriptStage(Scene(["-c", code], ["-c", code]), rows(place / "start"), place / "stage")


def call(stage: faults.FaultyStage, name: str) -> faults.Call:
    return [one for one in stage.calls if one.name == name][-1]


def test_a_failing_write_and_a_kill_before_the_rename_leave_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = script_stage(SAVE, tmp_path, monkeypatch)
    assert {"open", "write", "fsync", "rename"} <= {one.name for one in stage.calls}
    assert stage.attack(call(stage, "write"), "ENOSPC") is None
    renamed = call(stage, "rename")
    stage.begin()
    killed = stage.strike(renamed, FAILING_SIGNAL=9)
    assert killed.code == -signal.SIGKILL and (stage.here / "out.csv").read_text() == "id,yes\n0,0.5\n"
    assert len(list(stage.here.glob("*.tmp"))) == 1
    assert saves.attack(stage, renamed) is None and stage.missed == 0


def test_a_file_that_a_failing_write_leaves_empty_and_a_fault_that_hits_nothing_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = script_stage(SAVE_IN_PLACE, tmp_path, monkeypatch)
    assert stage.attack(call(stage, "write"), "EIO") == "out.csv is not what it was"
    assert not stage.hit_none(1)
    stage.attack(faults.Call(99, "write", "out.csv"), "EIO")
    assert (stage.missed, stage.hit_none(2), stage.hit_none(1)) == (1, False, True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A short run, undisturbed once."""
    place = tmp_path_factory.mktemp("siege")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield Stage(SCENES["run"], rows(place / "start"), place / "stage")


def test_a_run_that_trains_ends_with_143_at_sigterm_and_goes_on_to_its_result(stage: Stage) -> None:
    def trains() -> bool:
        return (stage.here / "made" / "metrics.csv").is_file()

    assert signals.attack(stage, signal.SIGTERM, 120.0, trains) is None


def test_a_run_with_a_home_that_cannot_be_written_makes_no_cache_elsewhere_and_ends_as_usual(stage: Stage) -> None:
    stage.begin()
    ended = surroundings._with(stage, surroundings.VARIABLES["a HOME that cannot be written"])
    assert not (stage.here / "cache").exists()
    assert stage.after(ended, "--trust") is None


@pytest.mark.parametrize(
    ("number", "state", "codes"),
    [
        (signal.SIGTERM, "imports", {143, -15}),
        (signal.SIGTERM, "trains", {143}),
        (signal.SIGINT, "trains", {130}),
        (signal.SIGHUP, "finished", {129, -1, 0}),
        (signal.SIGQUIT, "trains", {-3}),
        (signal.SIGKILL, "finished", {-9, 0}),
        (signal.SIGPIPE, "trains", {0}),
    ],
)
def test_what_a_command_has_written_says_which_exit_codes_of_a_signal_are_right(
    tmp_path: Path, number: signal.Signals, state: str, codes: set[int]
) -> None:
    stage = Stage.__new__(Stage)
    stage.scene, stage.here, stage.complete = Scene([], []), tmp_path, {"out.csv": b"whole"}
    if state != "imports":
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "metrics.csv").touch()
    (tmp_path / "out.csv").write_text("whole" if state == "finished" else "half")
    assert signals.right(stage, number) == codes


@pytest.mark.parametrize(
    ("code", "said", "well"),
    [
        (0, "done", True),
        (1, "a note\ndanube-sweep: error: the disk is full\n", True),
        (1, "a note without an error", False),
        (1, "danube-sweep: error: one\ndanube-sweep: error: two\n", False),
        (0, "danube-sweep: error: one\n", False),
        (-11, "danube-sweep: error: one\n", False),
        (1, "Traceback (most recent call last):\ndanube-sweep: error: one\n", False),
    ],
)
def test_a_command_that_fails_has_one_line_of_an_error(code: int, said: str, well: bool) -> None:
    assert (badly_ended(Ended(code, said)) is None) == well


def test_parts_share_the_time_and_what_has_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one = hour.Hour()
    with one.part(0.5):
        assert one.begins("without an end") and one.left_out == []
    monkeypatch.setattr(hour.time, "monotonic", lambda: 100.0)
    one.end_s = 160.0
    with one.part(0.5):
        assert one.end_s == 130.0
        monkeypatch.setattr(hour.time, "monotonic", lambda: 131.0)
        assert not one.begins("the second half") and one.left_out == ["the second half"]
    assert one.begins("the rest")


def test_the_first_and_last_call_of_every_site_are_drawn_by_the_seed() -> None:
    calls = [faults.Call(number, "write", f"made/log-{number % 3}.txt") for number in range(9)]
    calls += [faults.Call(9, "rename", "made/result.json"), faults.Call(10, "write", "made/a.csv")]
    whole = faults.sites(calls, 1.0)
    assert sorted(one.number for one in whole) == [0, 8, 9, 10]  # digits in names count as one file
    assert {tuple(faults.sites(calls, 0.5, seed)) for seed in range(9)} > {tuple(faults.sites(calls, 0.5, 0))}
