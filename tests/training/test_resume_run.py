"""A run that was stopped, killed or refused goes on as if nothing had happened."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY, tiny_config
from covering import one_in
from runs import StopAfter, metrics, start, train

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.errors import CheckpointError, DiskError, Interrupted
from danube_sweep.storage.checkpoint_places import place_checkpoints
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.lightning_loop import PackModule

Tiny = Callable[..., Config]
Outcome = tuple[object, ...]

STEPS = 12
EXACT = ["lora.dropout=0.1", "lora.rank=4", f"trainer.max_steps={STEPS}", "trainer.validate_every=5", "data.rows=50"]
"""40 training rows in steps of 8, each of two micro-batches: 5 steps an epoch, so 12 steps cross two borders."""


def outcome(folder: Path) -> Outcome:
    """What must not depend on stops: losses, validation metrics, result and the bytes of weights and predictions."""
    result = json.loads((folder / "result.json").read_text())
    files = [*sorted((folder / "adapter").glob("*.safetensors")), folder / "predictions.parquet"]
    assert len(files) == 3
    return (
        metrics(folder, "train"),
        metrics(folder, "validation"),
        {key: value for key, value in result.items() if key != "measured"},
        [file.read_bytes() for file in files],
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """The outcome of the same run without a stop: `undisturbed("seed=1")`, trained once."""
    known: dict[tuple[str, ...], Outcome] = {}

    def trained(*overrides: str) -> Outcome:
        if overrides not in known:
            folder = tmp_path_factory.mktemp("whole") / "run"
            train(tiny_config(*EXACT, *overrides), folder)
            known[overrides] = outcome(folder)
        return known[overrides]

    return trained


def stop_and_resume(config: Config, folder: Path, step: int) -> None:
    with pytest.raises(Interrupted, match=f"at step {step} of {STEPS}; go on with: danube-sweep resume"):
        train(config, folder, stop=StopAfter(step))
    assert not (folder / "result.json").exists()
    assert len(metrics(folder, "train")) == step
    train(load_config(folder / "config.yaml"), folder)


@pytest.mark.parametrize("step", one_in(3, range(1, STEPS)))
def test_a_run_stopped_at_any_step_ends_as_the_undisturbed_one(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome], step: int
) -> None:
    stop_and_resume(tiny(*EXACT), tmp_path / "run", step)
    assert outcome(tmp_path / "run") == undisturbed()


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw_8bit", "lora.rank=64"],
        pytest.param(["precision=nf4", "precision.compute=bf16", "schedule=linear"], marks=pytest.mark.full),
        ["optimizer=schedulefree", "schedule=constant", "lora.plus_ratio=4", "head.lr=0.01"],
        ["optimizer=muon", "precision=bf16", "head.pooling=attention", "data.batching=packed"],
        pytest.param(["head=sequence", "trainer.patience=1", "optimizer.lr=0.0001"], marks=pytest.mark.full),
    ],
)
def test_other_trials_resume_exactly_too(tiny: Tiny, tmp_path: Path, overrides: list[str]) -> None:
    config = tiny(*EXACT, *overrides)
    train(config, tmp_path / "whole")
    stop_and_resume(config, tmp_path / "run", 7)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("step", one_in(3, [5, 1, 6]))
def test_a_trial_whose_optimizer_has_modes_resumes_exactly_before_at_and_after_a_validation(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome], step: int
) -> None:
    modes = ["optimizer=schedulefree", "schedule=constant"]
    stop_and_resume(tiny(*EXACT, *modes), tmp_path / "run", step)
    assert outcome(tmp_path / "run") == undisturbed(*modes)


def test_a_run_goes_on_and_is_found_with_another_micro_batch(tiny: Tiny, tmp_path: Path) -> None:
    """Its losses are those of the undisturbed run but for the order of additions (dropout draws by pass)."""
    exact = [*EXACT, "lora.dropout=0", "trainer.eval_batch=4"]
    train(tiny(*exact, "trainer.micro_batch=4"), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tiny(*exact, "trainer.micro_batch=4"), tmp_path / "run", stop=StopAfter(7))
    done = train(tiny(*exact, "trainer.micro_batch=2"), tmp_path / "run")
    said = (tmp_path / "run" / "log.txt").read_text()
    assert "trainer.micro_batch=2 from here on, 4 before" in " ".join(said.split())
    whole, other = (metrics(tmp_path / name, "validation") for name in ("whole", "run"))
    assert [float(one["log_loss"]) for one in other] == pytest.approx(
        [float(one["log_loss"]) for one in whole], abs=2e-6
    )
    assert train(tiny(*exact, "trainer.micro_batch=8"), tmp_path / "run") == done


def test_a_run_stopped_again_and_again_ends_as_the_undisturbed_one(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    config = tiny(*EXACT)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(config, tmp_path / "run", stop=StopAfter(3))
    train(config, tmp_path / "run")
    assert outcome(tmp_path / "run") == undisturbed()


def test_steps_written_after_the_last_checkpoint_are_written_again_and_not_twice(tiny: Tiny, tmp_path: Path) -> None:
    config, folder = tiny(*EXACT, "trainer.log_every=1"), tmp_path / "run"
    train(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(6))
    lines = (tmp_path / "whole" / "metrics.csv").read_text().splitlines(keepends=True)
    later = [line for line in lines if line.startswith(("7,train", "8,train"))]
    with (folder / "metrics.csv").open("a") as stream:
        stream.write("".join(later) + "9,tra")
    train(config, folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_run_that_could_not_write_its_product_finishes_without_training_again(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    config, folder = tiny(*EXACT), tmp_path / "run"
    take_over(folder, Kind.run)
    (folder / "adapter").touch()
    with pytest.raises(DiskError, match="adapter cannot be written"):
        train(config, folder)
    assert not (folder / "result.json").exists()
    (folder / "adapter").unlink()
    written = (folder / "metrics.csv").read_bytes()
    train(config, folder)
    assert (folder / "metrics.csv").read_bytes() == written
    assert outcome(folder) == undisturbed()


def test_a_run_out_of_patience_trains_no_further_when_it_is_resumed(tiny: Tiny, tmp_path: Path) -> None:
    diverging = ["optimizer.lr=0.5", "schedule=constant", "trainer.validate_every=1", "trainer.patience=2"]
    config, folder = tiny(*diverging, "trainer.max_steps=40"), tmp_path / "run"
    train(config, tmp_path / "whole")
    take_over(folder, Kind.run)
    (folder / "adapter").touch()
    with pytest.raises(DiskError):
        train(config, folder)
    (folder / "adapter").unlink()
    train(config, folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def damage(file: Path, way: str) -> None:
    content = bytearray(file.read_bytes())
    if way == "a bit":
        content[len(content) // 2] ^= 0x01
    if way == "no field":  # as in version 0.1, whose manifests have no hash of their own
        stated = {**json.loads(content), "state": {"dict": []}}
        content = bytearray(json.dumps({key: value for key, value in stated.items() if key != "seal"}).encode())
    file.write_bytes(
        bytes(len(content)) if way == "nuls" else content[: len(content) // 2] if way == "cut" else content
    )


def note_of(folder: Path, words: str) -> str:
    (line,) = (line for line in (folder / "log.txt").read_text().splitlines() if words in line)
    return line


@pytest.mark.parametrize(
    ("name", "way"),
    one_in(
        2,
        [
            ("adapter_model.safetensors", "a bit"),
            ("checkpoint.json", "a bit"),
            ("training.safetensors", "nuls"),
            ("checkpoint.json", "nuls"),
            ("checkpoint.json", "no field"),
        ],
    ),
)
def test_after_damage_to_the_last_checkpoint_a_run_goes_on_from_the_one_before(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome], name: str, way: str
) -> None:
    config, folder = tiny(*EXACT), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(8))
    assert [step.name for step in sorted((folder / "checkpoints").iterdir())] == ["step-00000005", "step-00000008"]
    damage(folder / "checkpoints" / "step-00000008" / name, way)
    train(config, folder)
    assert f"{name} " in note_of(folder, "goes on from step 5, so that 3 steps are trained again")
    assert outcome(folder) == undisturbed()


def test_without_a_whole_checkpoint_a_run_starts_again_and_says_so(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    config, folder = tiny(*EXACT), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(8))
    for file in (folder / "checkpoints").glob("*/head.safetensors"):
        damage(file, "cut")
    train(config, folder)
    note_of(folder, "no other is whole, so that the trial starts again: 8 steps are lost")
    assert outcome(folder) == undisturbed()


def test_checkpoints_elsewhere_change_nothing_and_leave_nothing(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "run"
    config, plain = tiny(*EXACT, f"storage.checkpoints={disk}"), tiny(*EXACT)
    assert trial_hash(config) == trial_hash(plain)
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(6))
    (place,) = disk.iterdir()
    assert place.name.startswith("run-") and {step.name for step in place.glob("step-*")} == {
        "step-00000005",
        "step-00000006",
    }
    assert not (folder / "checkpoints").exists()
    train(plain, folder)  # it stays where it began
    assert outcome(folder) == undisturbed()
    assert list(disk.iterdir()) == [] and not (folder / "checkpoints.json").exists()


def test_a_place_of_checkpoints_that_is_gone_is_refused_with_the_way_out(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    folder, disk = RunFolder(tmp_path / "run"), tmp_path / "disk"
    config = tiny(*EXACT, f"storage.checkpoints={disk}")
    with pytest.raises(Interrupted):
        train(config, folder.path, stop=StopAfter(2))
    disk.rename(tmp_path / "unmounted")
    said = (
        "which is no folder of checkpoints; mount its disk, or delete checkpoints.json to train the trial from its st"
    )
    with pytest.raises(CheckpointError, match=said):
        train(config, folder.path)
    (tmp_path / "unmounted").rename(disk)
    assert place_checkpoints(folder, str(disk)) is None, "with its disk it goes on"
    disk.rename(tmp_path / "unmounted")
    (folder.path / "checkpoints.json").unlink()
    train(config, folder.path)
    assert outcome(folder.path) == undisturbed()


def test_checkpoints_of_a_begun_run_stay_where_they_are(tmp_path: Path) -> None:
    here, there = RunFolder(tmp_path / "here"), RunFolder(tmp_path / "there")
    (here.checkpoints / "step-00000005").mkdir(parents=True)
    (here.checkpoints / "step-00000005" / "checkpoint.json").touch()
    assert "stay in" in str(place_checkpoints(here, str(tmp_path / "disk")))
    there.path.mkdir()
    assert place_checkpoints(there, str(tmp_path / "disk")) is None
    assert "stay in" in str(place_checkpoints(there, str(tmp_path / "other")))
    assert there.checkpoints.parent == tmp_path / "disk"


def test_a_half_written_checkpoint_does_not_count(
    tiny: Tiny, tmp_path: Path, undisturbed: Callable[..., Outcome]
) -> None:
    config, folder = tiny(*EXACT), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(4))
    half = folder / "checkpoints" / ".step-00000005.123.tmp"
    half.mkdir()
    (half / "head.safetensors").write_bytes(b"half")
    train(config, folder)
    assert outcome(folder) == undisturbed()


# ------------------------------------------------------------------------------------------- real processes


def signalled(folder: Path, number: signal.Signals, *, after: str) -> tuple[int, str]:
    """Resumes the run in a process of its own, signals it once it says `after`; its exit code and its stderr."""
    process = start("resume", str(folder), cwd=folder.parent)
    assert process.stdout is not None
    assert any(after in line for line in process.stdout), process.communicate()
    process.send_signal(number)
    _, errors = process.communicate()
    return process.returncode, errors


def test_a_run_survives_a_sigterm_and_a_kill_and_ends_as_the_undisturbed_one(tiny: Tiny, tmp_path: Path) -> None:
    config, folder = tiny("trainer.max_steps=70", "trainer.validate_every=5", "data.rows=50"), tmp_path / "run"
    train(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(1))
    code, errors = signalled(folder, signal.SIGTERM, after="step 5 validation")
    assert code == 143
    assert errors == stopped(len(metrics(folder, "train")), 70, folder)
    assert signalled(folder, signal.SIGKILL, after="step 30 validation") == (-signal.SIGKILL, "")
    assert not (folder / "result.json").exists()
    assert main.main(["resume", str(folder)]) == 0
    assert outcome(folder) == outcome(tmp_path / "whole")


def stopped(step: int, steps: int, folder: Path) -> str:
    place = f"go on with: danube-sweep resume {folder}"
    said = "stopping after this step; again to stop at once\n"
    return f"{said}danube-sweep: stopped: at step {step} of {steps}; {place}\n"


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, signal.Signals], None]:
    """`signal_at(3, SIGTERM)`: the process gets the signal in the forward pass that follows the third step."""

    def arm(step: int, number: signal.Signals) -> None:
        losses = PackModule._losses

        def signalling(self: PackModule, *arguments: Any) -> Any:
            if self.pack.trials[0].done.step == step:
                monkeypatch.setattr(PackModule, "_losses", losses)
                signal.raise_signal(number)
            return losses(self, *arguments)

        monkeypatch.setattr(PackModule, "_losses", signalling)

    return arm


@pytest.mark.parametrize(
    ("step", "number"), one_in(3, [(2, signal.SIGTERM), (2, signal.SIGINT), (4, signal.SIGTERM), (4, signal.SIGINT)])
)
def test_a_signal_stops_the_run_after_a_checkpoint_and_says_how_to_go_on(
    tiny: Tiny,
    tmp_path: Path,
    signal_at: Callable[[int, signal.Signals], None],
    undisturbed: Callable[..., Outcome],
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    step: int,
) -> None:
    """Step 2 is the first of the resumed process, where Lightning's own handler for SIGTERM stands in front of ours."""
    config, folder = tiny(*EXACT), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(config, folder, stop=StopAfter(2))
    signal_at(step, number)
    capfd.readouterr()
    assert main.main(["resume", str(folder)]) == 128 + number
    assert capfd.readouterr().err == stopped(len(metrics(folder, "train")), STEPS, folder)
    assert not (folder / "result.json").exists()
    train(config, folder)
    assert outcome(folder) == undisturbed()


def test_a_second_signal_stops_at_once(
    tiny: Tiny,
    tmp_path: Path,
    signal_at: Callable[[int, signal.Signals], None],
    undisturbed: Callable[..., Outcome],
) -> None:
    config, folder = tiny(*EXACT), tmp_path / "run"
    for _ in range(2):
        signal_at(3, signal.SIGINT)
    with pytest.raises(Interrupted, match="at once, without a checkpoint of the last steps"):
        train(config, folder)
    train(config, folder)
    assert outcome(folder) == undisturbed()


def test_a_signal_ends_a_whole_multirun_of_the_basic_launcher(
    tmp_path: Path, signal_at: Callable[[int, signal.Signals], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    signal_at(1, signal.SIGTERM)
    small = ["data.rows=60", "trainer.max_steps=3", *TINY]
    assert main.main(["-m", "hydra/launcher=basic", "seed=0,1,2", "hydra.sweep.dir=sweep", *small]) == 143
    (begun,) = (file.parent for file in (tmp_path / "sweep").glob("*/metrics.csv"))
    assert begun.name.startswith("001_")
    assert not list((tmp_path / "sweep").glob("*/result.json"))


def test_a_config_survives_its_file(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("lora=dora", "name=a run")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain_config(config)))
    assert load_config(file) == config
