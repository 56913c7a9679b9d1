"""A trial or a pack on several ranks, as processes: it is the same trial, and it ends as one."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostile
import pytest
import runs
from sweeps import Task, left_over, numbers, on_ranks, planned, quiet, run

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Device, Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.sweeping.execute.asked_devices import asked_count, together
from danube_sweep.sweeping.execute.child_process import train_task
from danube_sweep.sweeping.execute.chosen_count import SweepSlots, ranks_of, slots_of
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.execute.slots import find_slots, ranks_for
from danube_sweep.sweeping.propose.next_trial import FolderSource

Tiny = Callable[..., Config]

TRIAL = [
    "precision=fp32", "data.rows=40", "data.max_length=32", "trainer.max_steps=20", "trainer.validate_every=10",
    "trainer.log_every=1", "trainer.micro_batch=2", "trainer.effective_batch=6", "lora.dropout=0.2",
    "head=sequence", "head.dropout=0.2", "model.lr=0.003",
]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """The trial and its run by one process."""
    from conftest import tiny_config

    config, folder = tiny_config(*TRIAL), tmp_path_factory.mktemp("alone")
    runs.train(config, folder)
    return config, folder


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("trial", "state", "steps", "epochs", "best_step", "rows", "parameters")}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.full)])
def test_several_ranks_train_the_trial_that_one_process_trains(
    alone: tuple[Config, Path], tmp_path: Path, count: int
) -> None:
    config, one = alone
    assert on_ranks(config, tmp_path / "run", count) == 0
    assert numbers(tmp_path / "run") == pytest.approx(numbers(one), abs=1e-6)
    tokens = [[row["tokens"] for row in runs.metrics(folder, "train")] for folder in (tmp_path / "run", one)]
    assert tokens[0] == tokens[1]
    found, wanted = (read_json(folder / "result.json") for folder in (tmp_path / "run", one))
    assert lasting(found) == lasting(wanted)
    assert found["measured"]["devices"] == count and wanted["measured"]["devices"] == 1


def test_a_checkpoint_of_two_ranks_goes_on_by_one_process_and_back(alone: tuple[Config, Path], tmp_path: Path) -> None:
    config, one = alone
    folder = tmp_path / "run"
    assert on_ranks(config, folder, 2, stop_at=6) != 0 and not (folder / "result.json").exists()
    with pytest.raises(Exception, match="go on with: danube-sweep resume"):
        runs.train(config, folder, stop=runs.StopAfter(5))
    refused = runs.command("resume", "run", "device.count=two", cwd=tmp_path)
    assert refused.returncode == 2 and "device.count must be a number from 1 on, all or auto, got two" in refused.stderr
    done = runs.command("resume", "run", "device.count=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_json(folder / "result.json")["measured"]["devices"] == 2
    assert numbers(folder) == pytest.approx(numbers(one), abs=1e-6)


def test_a_pack_of_two_ranks_fills_its_places_again(tmp_path: Path) -> None:
    own = [*TRIAL, "trainer.max_steps=4", "trainer.validate_every=2", "precision=nf4", "precision.compute=fp32"]
    cells = [[f"seed={seed}", f"trainer.effective_batch={batch}"] for seed, batch in ((1, 6), (2, 4), (3, 6))]
    packed = ["sweep.pack=2", "device.count=2"]
    together = run(planned(tmp_path / "ranks", cells, *own, *packed))
    assert together.error is None and together.states() == ["finished"] * 3
    assert {trial["pack"] for number in (1, 2, 3) for trial in [vars(together.attempts(number)[-1])]} == {"p001"}
    single = run(planned(tmp_path / "one", cells, *own, "sweep.pack=1"))
    for number in (1, 2, 3):
        found, wanted = together[number].path, single[number].path
        assert numbers(found) == pytest.approx(numbers(wanted), abs=1e-5)


@pytest.mark.parametrize(
    ("task", "state", "reason"),
    [
        (hostile.others_are_killed, "killed", "killed by SIGKILL"),
        (hostile.others_are_frozen, "timeout", "no step for sweep.stall_s=4 seconds"),
    ],
)
def test_a_rank_that_dies_or_hangs_ends_its_trial_once_and_leaves_nobody(
    tmp_path: Path, task: Task, state: str, reason: str
) -> None:
    ran = run(planned(tmp_path, [["seed=1"]], *TRIAL, "device.count=3"), task, stall_s=4.0, retry=[])
    assert ran.states() == [state]
    assert ran.attempts(1)[-1].reason == reason
    pids = hostile.lines(tmp_path, hostile.PIDS)
    assert len(pids) >= 2 and not left_over(pids)


def test_what_fails_on_one_rank_before_the_sum_fails_on_all(tmp_path: Path) -> None:
    plan = planned(tmp_path, [["seed=1"]], *TRIAL, "device.count=2")
    ran = run(plan, hostile.leads_without_a_gradient, stall_s=60.0, retry=[])
    assert (ran.states(), ran.attempts(1)[-1].reason) == (["failed"], "a gradient is missing here")


class NotTwice(str):
    """A text that leaves this process once."""

    left = 0

    def __reduce__(self) -> Any:
        NotTwice.left += 1
        if NotTwice.left > 1:
            raise MemoryError("not again")
        return str, (str(self),)


def test_a_rank_that_cannot_start_leaves_no_leader_and_no_folder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ranks: Any = ({}, {"X": NotTwice("1")})
    job = Job(tmp_path / "run", Path.cwd(), dict(os.environ), tiny(*TRIAL), log=tmp_path / "log.txt", ranks=ranks)
    before = set(multiprocessing.active_children())
    with pytest.raises(MemoryError, match="not again"):
        Pool(on_cpu=True).start(train_task, job)
    assert set(multiprocessing.active_children()) <= before
    assert not [*tmp_path.glob("danube-sweep-*")]


def test_the_command_line_trains_on_several_ranks(tiny: Tiny, tmp_path: Path) -> None:
    from conftest import TINY

    own = [*TRIAL, "trainer.max_steps=2", "trainer.validate_every=2"]
    own += ["lora.dropout=0", "lora.last_k=1", "data.cache_prefix=true", "data.max_length=29"]
    done = runs.command(*TINY, *own, "device.count=2", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 2 validation" in done.stdout
    assert "the states below the adapted blocks of" in done.stdout  # the rank that has the screen writes them
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["trial"], result["measured"]["devices"]) == (trial_hash(tiny(*own)), 2)


def test_each_slot_has_so_many_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    slots = find_slots(Sweep(), {"auto"}, 2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in slots.environments] == ["4,5", "6,7"]
    assert slots.ranks_in(1) == ({"CUDA_VISIBLE_DEVICES": "6"}, {"CUDA_VISIBLE_DEVICES": "7"})
    assert len(find_slots(Sweep(), {"auto"}, "all").ranks_in(0)) == 5
    assert ranks_for(Device(count=3)) == tuple({"CUDA_VISIBLE_DEVICES": number} for number in "456")
    assert ranks_for(Device()) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert ranks_for(Device(count="all")) == ()


@pytest.mark.parametrize(
    ("visible", "device", "slots", "message"),
    [
        ("0,1", Device(count=3), 1, "device.count=3: torch sees 2 GPUs here; use device.count=2 or device.count=all"),
        ("0", Device(count=2), 1, "device.count=2: torch sees 1 GPU here; use device.count=1"),
        ("", Device(count=2), 1, "device.count=2: torch sees no GPU here; use device.count=1"),
        ("0,1,2", Device(count=2), 2, "sweep.slots=2 with device.count=2 takes 4 GPUs, and torch sees 3 GPUs here"),
    ],
)
def test_more_devices_than_there_are_is_one_line(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: Device, slots: int, message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ConfigError) as raised:
        find_slots(Sweep(slots=slots), {device.accelerator}, device.count)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["device.count=2", "device.threads=null"], "device.count=2: a CPU is one device, whose threads train a trial"),
        (["device.count=0"], "device.count must be a number from 1 on, all or auto, got 0"),
        (["device.count=two"], "device.count must be a number from 1 on, all or auto, got two"),
        (["device=cuda", "device.index=1", "device.count=auto"], "device.count=auto chooses among the visible GPUs"),
        (["device=kaggle_t4x2", "device.count=auto", "device.sharding=full"], "device.sharding=full needs a number of"),
        (["device=kaggle_t4x2", "device.count=3"], "device.count=3: a T4 has device.gpus=2"),
        (["device=cuda", "device.index=1", "device.count=2"], "device.count=2 takes the first 2 visible GPUs"),
    ],
)
def test_a_count_that_cannot_be_is_refused(tiny: Tiny, override: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        tiny(*override)
    assert str(raised.value).startswith(message)


def test_a_sweep_goes_on_with_another_number_of_gpus(tmp_path: Path) -> None:
    own = ["device.threads=1", "trainer.max_steps=2", *["data.rows=40", "data.max_length=32"]]
    before = planned(tmp_path, [["seed=1"], ["seed=2"]], *own, "device.count=3")
    first = before.folder.entries()[0].folder
    write_json(first.result, {"state": "finished"})
    now = planned(tmp_path, [["seed=1"], ["seed=2"]], *own, "device.count=1")
    assert together(now.folder, None) == 3 and together(now.folder, None, now.counts) == 1
    added = planned(tmp_path, [["seed=1"], ["seed=2"], ["seed=3"]], *own, "device.count=2")
    with pytest.raises(ConfigError, match=r"^device\.count differs among trials \(2, 3\); .*, as in device\.count=2"):
        together(added.folder, None)  # of those that are open
    assert asked_count(added.folder, ["sweep.slots=1", "device.count=2"]) == {2}
    with pytest.raises(ConfigError, match=r"device\.count must be a number from 1 on, all or auto, got x"):
        asked_count(added.folder, ["device.count=x"])
    for entry in added.folder.entries():
        write_json(entry.folder.result, {"state": "finished"})
    assert together(added.folder, None) in (2, 3)


ON_T4 = ["device=kaggle_t4x2", "data.max_length=512", "trainer.max_steps=100", "trainer.effective_batch=8"]


def test_auto_is_ranks_for_a_single_trial_and_is_said(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import compose

    config = compose([*ON_T4, "model=danube3_500m", "precision=nf4", "trainer.micro_batch=2", "device.count=auto"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert ranks_of(config) == ({"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "5"})
    shown = " ".join(capsys.readouterr().out.split())
    assert "device.count=auto: 2 GPUs train it together: predicted 1.9" in shown
    for visible in ("4", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert ranks_of(config) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    on_cpu = tiny("device.count=auto")
    assert ranks_of(on_cpu) == () and capsys.readouterr().out == ""
    assert trial_hash(on_cpu) == trial_hash(tiny())


@pytest.mark.parametrize(("trials", "slots", "last"), [(1, ["4,5"], 0), (3, ["4", "5"], 1), (6, ["4", "5"], 0)])
def test_auto_counts_the_open_trials_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, slots: list[str], last: int
) -> None:
    cells = [[f"seed={seed}", *ON_T4, "trainer.micro_batch=2", "device.count=auto"] for seed in range(trials + 1)]
    plan = planned(tmp_path, cells, "device.threads=null", "sweep.pack=1")
    write_json(plan.folder.entries()[0].folder.result, {"state": "finished"})  # this one is not open
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr("danube_sweep.sweeping.execute.chosen_count.probe_once", lambda *_: None)
    terminal, said = quiet()
    source = FolderSource(plan.folder)
    found = slots_of(plan.sweep, {"cuda"}, together(plan.folder, None), source, None, terminal, may_leave=True)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found.slots.environments] == slots
    assert found.last == last and said.getvalue().count("device.count=auto: ") == 1
    assert (found.together is not None) == bool(last)
    if found.together is not None:
        assert len(found.together.ranks_in(0)) == 2 and len(found.together.environments) == 1


def test_auto_counts_more_trials_where_there_are_more_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import compose

    config = compose([*ON_T4, "model=danube3_500m", "trainer.micro_batch=2", "device.count=auto"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7,8")
    monkeypatch.setattr("danube_sweep.sweeping.execute.chosen_count.probe_once", lambda *_: None)
    source: Any = SimpleNamespace(waiting=lambda _wanted, _most: [], drawable=lambda: 1000)
    terminal, said = quiet()
    slots_of(Sweep(), {"cuda"}, "auto", source, config, terminal, may_leave=False)
    assert "a GPU for each trial, as there are more than 72 for 9 GPUs" in " ".join(said.getvalue().split())


def test_the_last_trials_are_left_for_other_slots(tmp_path: Path) -> None:
    plan = planned(tmp_path, [["seed=1"], ["seed=2"], ["seed=3"]], *TRIAL, "sweep.pack=1")
    source, two = FolderSource(plan.folder), find_slots(Sweep(slots=2), {"cpu"})
    Executor(source, plan.sweep, two, quiet()[0], lambda: False, hostile.instant, last=1).run()
    assert [entry.folder.result.is_file() for entry in plan.folder.entries()] == [True, True, False]


def test_a_sweep_trains_its_last_trials_when_the_slots_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, [["seed=1"], ["seed=2"], ["seed=3"]], *TRIAL, "sweep.pack=1")
    two, one = (find_slots(Sweep(slots=count), {"cpu"}) for count in (2, 1))
    monkeypatch.setattr("danube_sweep.sweeping.start_sweep.slots_of", lambda *_, **__: SweepSlots(two, 1, one))
    assert run(plan, hostile.instant).states() == ["finished"] * 3


def test_trials_of_a_sweep_have_one_count(tmp_path: Path) -> None:
    plan = planned(tmp_path, [["device.count=1"], ["device.count=2", "seed=1"]], *TRIAL)
    with pytest.raises(ConfigError, match=r"^device\.count differs among trials \(1, 2\)"):
        run(replace(plan))
