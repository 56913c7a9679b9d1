"""Sweeps go on to their end, whatever their trials and the people around them do."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hostile
import pytest
import sweeps
import torch
import warm
from conftest import TINY, tiny_config
from filelock import FileLock
from runs import start
from sweeps import SHORT, Ran, left_over, quiet, run, seeds, warm_parent

from danube_sweep.composer import Composer
from danube_sweep.config.schema import OnOom, Sweep
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DiskError, Interrupted, SweepFailed
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Attempt, SweepFolder, append_attempt, attempts
from danube_sweep.sweeping.entry.result_folders import fresh_sweep_dir
from danube_sweep.sweeping.execute.messages import Failed
from danube_sweep.sweeping.execute.process_outcome import last_lines, outcome
from danube_sweep.sweeping.execute.slots import ask_torch_for_gpus, find_slots
from danube_sweep.sweeping.propose.next_trial import FolderSource, state_of
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_grid
from danube_sweep.training.signals import SIGNALS

ALONE = "sweep.pack=1"


@pytest.fixture(scope="module", autouse=True)
def one_warm_parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warm_parent(tmp_path_factory.mktemp("warm")):
        yield


def planned(path: Path, cells: list[list[str]], *settings: str) -> PlannedSweep:
    return sweeps.planned(path, cells, ALONE, *settings)


# -------------------------------------------------------------------------------------------------- hostile trials

GOOD = [*range(21, 35), 101, 102]


@pytest.fixture(scope="module")
def mixed(one_warm_parent: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
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
    pids = hostile.lines(mixed.plan.folder.path, hostile.PIDS)
    assert len(pids) == len(hostile.HOSTILE) + len(GOOD) + 1  # and what one of them has started
    assert not left_over(pids)


def test_what_failed_is_run_again_when_asked_and_what_was_preempted_unasked(mixed: Ran, tmp_path: Path) -> None:
    plan = replace(mixed.plan, folder=SweepFolder(Path(shutil.copytree(mixed.plan.folder.path, tmp_path / "again"))))
    again = run(plan, hostile.mended, retry=["failed", "killed"])
    kept = ["oom", "diverged", *["finished"] * 4, "disk_full", "finished", "finished", "oom", "finished"]
    assert again.states() == [*kept, *["finished"] * len(GOOD)]
    assert [len(again.attempts(number)) for number in (1, 3, 8, 12)] == [1, 2, 2, 1]
    assert "resumed at step 3 of 4" in again[8].folder.log.read_text()


def test_a_result_that_was_cut_short_is_run_again_with_a_word(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2))
    first = run(plan, hostile.instant)
    text = first[1].folder.result.read_text()
    first[1].folder.result.write_text(text[: len(text) // 2])
    second = run(plan, hostile.instant)
    assert (
        f"{second[1].path.name}: its result.json was damaged; the trial is run again (result.json.damaged)"
        in second.said
    )
    assert [len(second.attempts(number)) for number in (1, 2)] == [2, 1]
    assert second.error is None


def test_a_result_that_cannot_be_read_just_now_is_not_thrown_away(tmp_path: Path) -> None:
    entry = run(planned(tmp_path, seeds(1)), hostile.instant)[1]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(CheckpointError):
            state_of(entry)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert state_of(entry) == "finished"


def test_a_trial_without_memory_is_tried_with_half_the_micro_batch_down_to_one(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1)), hostile.greedy, on_oom=OnOom.retry)
    result = ran.result(1)
    assert result is not None and ran.error is None
    assert [attempt.state for attempt in ran.attempts(1)] == ["oom", "oom", "finished"]
    assert result["adjusted"] == json.loads(ran[1].folder.adjusted.read_text()) == {"trainer.micro_batch": 1}
    assert "again with trainer.micro_batch=2" in ran.said


def test_a_trial_with_a_smaller_micro_batch_is_still_itself_when_it_goes_on(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1), "data.test_fraction=0.2")
    ran = run(plan, hostile.greedy_until_stopped, on_oom=OnOom.retry)
    assert isinstance(ran.error, Interrupted)
    assert [attempt.state for attempt in ran.attempts(1)] == ["oom", "interrupted"]
    assert load_config(ran[1].folder.config).trainer.micro_batch == 4
    assert (ran[1].folder.checkpoints / "step-00000002").is_dir()
    later = run(plan)
    result = later.result(1)
    assert later.error is None and result is not None
    assert (result["state"], result["adjusted"]) == ("finished", {"trainer.micro_batch": 2})
    assert list(json.loads((tmp_path / "test.json").read_text())["trials"]) == [ran[1].hash]


def test_data_that_were_changed_since_the_sweep_was_planned_are_told(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    rows = "".join(f"row {number} of many,{'ab'[number % 2]}\n" for number in range(40))
    data.write_text("text,label\n" + rows)
    task = ["data=table", f"data.path={data}", "head=sequence", "model.shape.vocab_size=300", "tracking=none"]
    found = plan_grid(tmp_path / "sweep", [["trainer.max_steps=2", *task]], Composer(), quiet()[0])
    assert found is not None
    plan = found[0]
    data.write_text("text,label\n" + rows.replace("many", "more"))
    ran = run(plan)
    assert ran.states() == ["invalid"]
    assert "were changed since the sweep was planned" in str(ran.attempts(1)[0].reason)


def test_a_trial_that_is_being_trained_elsewhere_is_left_alone(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2))
    (first, _) = plan.folder.entries()
    held = FileLock(first.folder.lock)
    held.acquire()
    source = FolderSource(plan.folder)
    claim = source.claim()
    assert claim is not None and claim.entry.number == 2 and source.pending()
    held.release()
    claim.release()


def test_a_trial_that_another_worker_has_completed_is_passed_without_a_claim(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2, 3))
    finished, pruned, left = plan.folder.entries()
    write_json(finished.folder.result, {"state": "finished"})
    write_json(pruned.folder.result, {"state": "pruned"})
    held = FileLock(finished.folder.claim)
    with held:  # by the worker that has yet to put the end on record
        source = FolderSource(plan.folder)
        claim = source.claim()
        assert claim is not None and claim.entry.number == left.number
        assert source.claim() is None and source.pending()  # the third, which this one holds
    assert not pruned.folder.claim.exists()
    claim.release()


def test_an_end_that_its_worker_may_take_back_is_looked_at_under_the_claim(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1))
    (entry,) = plan.folder.entries()
    source = FolderSource(plan.folder)
    with FileLock(entry.folder.claim):
        write_json(entry.folder.result, {"state": "oom"})
        assert source.claim() is None and source.pending()
        entry.folder.result.unlink()  # to run with less memory, but the worker dies
    claim = source.claim()
    assert claim is not None
    claim.release()


def test_a_failed_trial_is_tried_again_by_one_process_only(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1))
    run(plan, hostile.raises)
    both = [FolderSource(plan.folder, ["failed"]) for _ in range(2)]
    claim = both[0].claim()
    assert claim is not None and both[1].claim() is None and both[1].pending()
    write_json(claim.entry.folder.result, {"state": "failed"})
    append_attempt(claim.entry.folder, Attempt("failed", 1.0, "", ""))
    claim.release()
    assert both[1].claim() is None and not both[1].pending()


def test_what_cannot_be_written_down_for_a_full_disk_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = iter([True, True])

    def write(path: Path, value: Any) -> None:
        if next(full, False):
            raise DiskError(f"{path} cannot be written: No space left on device; free some space")
        write_json(path, value)

    monkeypatch.setattr("danube_sweep.sweeping.execute.attempt_records.write_json", write)
    ran = run(planned(tmp_path, seeds(1, 2)), hostile.segfaults)
    assert ran.states() == ["failed", "failed"]
    assert ran.said.count("No space left on device") == 1


def test_one_row_that_is_too_much_is_out_of_memory(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1), "trainer.micro_batch=1"), hostile.cannot_be_built, on_oom=OnOom.retry)
    assert ran.states() == ["oom"]
    assert len(ran.attempts(1)) == 1


# ------------------------------------------------------------------------------------------------ time, signals


def test_a_trial_that_gets_nowhere_is_ended(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2, 3, 4, 5), "sweep.slots=3")
    ran = run(plan, hostile.some_hang, stall_s=4.0)
    assert ran.states() == [*["timeout"] * 3, "finished", "finished"]
    assert {ran.attempts(number)[0].reason for number in (1, 2, 3)} == {"no step for sweep.stall_s=4 seconds"}
    assert not left_over(hostile.lines(tmp_path, hostile.PIDS))


def test_a_trial_that_takes_too_long_is_asked_to_stop_and_then_ended(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2, 4), "sweep.slots=2")
    ran = run(plan, hostile.some_hang, timeout_h=4 / 3600, grace_s=0.5)
    assert ran.states() == ["timeout", "timeout", "finished"]
    assert [ran.attempts(number)[0].exit for number in (1, 2)] == [-signal.SIGTERM, -signal.SIGKILL]
    assert "longer than sweep.timeout_h=" in str(ran.attempts(1)[0].reason)


def test_the_deadline_stops_new_trials_and_running_ones_after_a_checkpoint(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2))
    ran = run(plan, hostile.until_stopped, deadline_h=5 / 3600)
    assert [attempt.state for attempt in ran.attempts(1)] == ["interrupted"]
    assert not ran.attempts(2) and ran.states() == [None, None]
    step = max(folder.name for folder in ran[1].folder.checkpoints.glob("step-*"))
    later = run(plan)
    assert later.states() == ["finished", "finished"] and later.error is None
    assert f"resumed at step {int(step.removeprefix('step-'))} of 4" in later[1].folder.log.read_text()


def test_one_ctrl_c_checkpoints_and_the_sweep_can_go_on(tmp_path: Path) -> None:
    plan = planned(tmp_path, seeds(1, 2))
    ran = run(plan, hostile.interrupting)
    assert isinstance(ran.error, Interrupted)
    assert ran.error.exit_code == 130 and f"danube-sweep resume {tmp_path}" in str(ran.error)
    assert [len(ran.attempts(number)) for number in (1, 2)] == [1, 0]
    assert ran.attempts(1)[0].state == "interrupted" and ran.attempts(1)[0].exit == 128 + signal.SIGTERM
    assert run(plan).states() == ["finished", "finished"]


def test_a_second_ctrl_c_ends_everything_at_once_and_on_record(tmp_path: Path) -> None:
    ran = run(planned(tmp_path, seeds(1, 2)), hostile.interrupting_twice)
    assert isinstance(ran.error, Interrupted) and "at once" in str(ran.error)
    assert [attempt.state for attempt in ran.attempts(1)] == ["interrupted"]
    assert ran.attempts(1)[0].exit == -signal.SIGKILL
    assert not left_over(hostile.lines(tmp_path, hostile.PIDS))


def test_a_sweep_that_is_told_to_end_exits_with_143(tmp_path: Path) -> None:
    sweep = start(
        "-m", *TINY, *SHORT, ALONE, "trainer.max_steps=500", "seed=1,2", "hydra.sweep.dir=swept", cwd=tmp_path
    )
    assert sweep.stdout is not None and sweep.stderr is not None
    for line in sweep.stdout:
        if re.search(r"step \d+/500", line):
            break
    sweep.terminate()
    sweep.stdout.read()
    assert "danube-sweep: stopped: go on with: danube-sweep resume swept" in sweep.stderr.read()
    assert sweep.wait() == 143
    folders = sorted(path.parent for path in tmp_path.glob("swept/*/trial.json"))
    assert [[attempt.state for attempt in attempts(RunFolder(path))] for path in folders] == [["interrupted"], []]


# ----------------------------------------------------------------------------------------- what the sweep relies on


def test_a_trial_whose_warm_parent_was_killed_can_go_on_and_so_does_the_sweep(tmp_path: Path) -> None:
    in_own_process("share(path, orphans)", tmp_path, seeds(1, 2, 3))
    states = [(entry.folder.read_result() or {}).get("state") for entry in SweepFolder(tmp_path).entries()]
    assert states == [None, "finished", "finished"]
    assert not left_over(hostile.lines(tmp_path, hostile.PIDS))


def test_a_ctrl_c_or_term_for_the_whole_process_group_leaves_the_warm_parent_alone(tmp_path: Path) -> None:
    parent = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    for number in SIGNALS:
        os.kill(parent, number)
    assert run(planned(tmp_path, seeds(1)), hostile.instant).states() == ["finished"]
    assert forkserver._forkserver._forkserver_pid == parent  # type: ignore[attr-defined]


def test_a_warm_parent_that_dies_before_it_starts_a_trial_is_replaced(tmp_path: Path) -> None:
    in_own_process("share_without_parent(path)", tmp_path, seeds(1))
    assert hostile.lines(tmp_path, hostile.COUNT) == [SweepFolder(tmp_path).entries()[0].path.name]


def test_a_sweep_that_is_killed_takes_its_trials_and_what_they_started_along(tmp_path: Path) -> None:
    in_own_process("share(path, kills_the_sweep)", tmp_path, seeds(1), code=-signal.SIGKILL)
    pids = hostile.lines(tmp_path, hostile.PIDS)
    assert len(set(pids)) == 2 and not left_over(pids)


@pytest.mark.full
def test_eight_processes_share_200_trials_and_run_each_once(tmp_path: Path) -> None:
    grid(tmp_path, range(200))
    shares = [own_process("share(path)", tmp_path) for _ in range(8)]
    assert [one.wait() for one in shares] == [0] * 8
    ran = hostile.lines(tmp_path, hostile.COUNT)
    assert sorted(ran) == sorted(entry.path.name for entry in SweepFolder(tmp_path).entries())
    assert len(ran) == 200
    assert all(len(attempts(entry.folder)) == 1 for entry in SweepFolder(tmp_path).entries())


def test_sweeps_that_start_in_the_same_second_have_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    together = threading.Barrier(16)

    def launch(_: int) -> Path:
        together.wait()
        with fresh_sweep_dir() as folder:
            (folder / "sweep.json").touch()
            return folder.absolute()

    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(launch, range(16)))
    assert len(set(folders)) == 16 and all((folder / "sweep.json").is_file() for folder in folders)


def grid(path: Path, numbers: Any) -> None:
    """Trials that differ in their seed, composed once."""
    folder, config = SweepFolder(path), tiny_config()
    with folder.locked():
        folder.write({})
        folder.add([(replace(config, seed=number), [f"seed={number}"], None) for number in numbers])


def own_process(what: str, path: Path) -> subprocess.Popen[str]:
    code = f"import sys; from pathlib import Path; path = Path(sys.argv[1]); from hostile import *; {what}"
    places = os.pathsep.join([str(Path(hostile.__file__).parent), *sys.path])
    return warm.popen("-c", code, path, env={**os.environ, "PYTHONPATH": places}, stdout=None, stderr=None)


def in_own_process(what: str, path: Path, cells: list[list[str]], code: int = 0) -> None:
    grid(path, [int(cell[0].partition("=")[2]) for cell in cells])
    assert own_process(what, path).wait() == code


# ------------------------------------------------------------------------------------------------------------ slots


def test_gpus_are_counted_in_a_process_of_its_own() -> None:
    assert ask_torch_for_gpus() == torch.cuda.device_count()


@pytest.mark.parametrize(
    ("visible", "environments"),
    [
        ("0, 3", [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]),
        ("MIG-1/2", [{"CUDA_VISIBLE_DEVICES": "MIG-1/2"}]),
        ("2,-1,1", [{"CUDA_VISIBLE_DEVICES": "2"}]),
        ("-1", [{}]),
        ("", [{}]),
    ],
)
def test_there_is_a_slot_for_every_gpu_that_cuda_may_see(
    monkeypatch: pytest.MonkeyPatch, visible: str, environments: list[dict[str, str]]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_slots(Sweep(), {"auto"}).environments == environments


def test_slots_share_a_gpu_and_trials_that_want_the_cpu_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert find_slots(Sweep(slots=2), {"cuda", "cpu"}).environments == [{"CUDA_VISIBLE_DEVICES": "7"}] * 2
    assert find_slots(Sweep(slots=2), {"cpu"}).on_cpu


def test_slots_on_the_cpu_share_its_cores_unless_threads_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert find_slots(Sweep(slots=1), {"cpu"}).threads is None
    assert find_slots(Sweep(slots=1000), {"cpu"}).threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert find_slots(Sweep(slots=1000), {"cpu"}).threads is None


# --------------------------------------------------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    ("code", "kernel_killed", "state", "reason"),
    [
        (-9, False, "killed", "killed by SIGKILL"),
        (-9, True, "oom", "the kernel ended it: out of memory"),
        (137, True, "oom", "the kernel ended it: out of memory"),
        (-15, True, "preempted", "asked to stop from outside"),
        (130, False, "preempted", "asked to stop from outside"),
        (-6, False, "failed", "ended by SIGABRT"),
        (-1, False, "killed", "ended by SIGHUP"),
        (-63, False, "failed", "ended by signal 63"),
        (1, True, "failed", "exited with code 1 and no result"),
        (76, False, "failed", "its processes (device.count) cannot reach each other, and none of them had died"),
    ],
)
def test_an_exit_code_tells_the_state(tmp_path: Path, code: int, kernel_killed: bool, state: str, reason: str) -> None:
    told = outcome(RunFolder(tmp_path), code, None, kernel_killed=kernel_killed)
    assert told[0] == state and str(told[1]).startswith(reason)


def test_a_result_counts_more_than_how_the_process_ended(tmp_path: Path) -> None:
    failed = Failed("failed", "ValueError: after the end")
    (tmp_path / "result.json").write_text('{"state": "finished"}')
    assert outcome(RunFolder(tmp_path), -9, failed, kernel_killed=True) == ("finished", None)
    (tmp_path / "result.json").write_text('{"state": "fini')
    assert outcome(RunFolder(tmp_path), 1, failed, kernel_killed=False) == ("failed", "ValueError: after the end")


def test_of_a_flooded_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("flood\r" * 100_000 + "\nthe end\n")
    assert last_lines(log)[-1] == "the end" and len(last_lines(log)) <= 50
    assert last_lines(tmp_path / "none.txt") == []
