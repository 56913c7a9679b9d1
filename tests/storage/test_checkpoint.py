"""Checkpoints: whole or not there, verified on load, and never a pickle."""

import ast
import errno
import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from conftest import TINY, compose
from safetensors.torch import load_file, save_file
from workbench import CPU, Parts, activate, build

import danube_sweep
from danube_sweep.config.schema import Config
from danube_sweep.errors import BusyError, CheckpointError, DamagedCheckpoint, DiskError
from danube_sweep.storage import checkpoint
from danube_sweep.storage.checkpoint import pack_state, read_manifest, unpack_state, write_checkpoint
from danube_sweep.storage.checkpoint_places import place_checkpoints
from danube_sweep.storage.checkpoints_by_step import Checkpoints
from danube_sweep.storage.files import content_hash
from danube_sweep.storage.leases import Lease
from danube_sweep.training import resume, trained_weights
from danube_sweep.training.assemble import AssembledModel
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.step_plan import Collator


def writer(text: str) -> Callable[[Path], None]:
    def write_files(folder: Path) -> None:
        checkpoint.save_tensors({"value": torch.full((1000,), float(len(text)))}, folder / "head.safetensors")
        (folder / "note.txt").write_text(text)

    return write_files


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ----------------------------------------------------------------------------------------------------------- writing


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "step-1", {"step": 1, "classes": ["ja", "nein — ó"]}, writer("one"))
    manifest = read_manifest(tmp_path / "step-1")
    assert (manifest["step"], manifest["classes"], manifest["format"]) == (1, ["ja", "nein — ó"], checkpoint.FORMAT)
    assert sorted(manifest["files"]) == ["head.safetensors", "note.txt"]
    assert names(tmp_path) == ["step-1"] and names(tmp_path / "step-1") == [
        "checkpoint.json",
        "head.safetensors",
        "note.txt",
    ]


def test_a_later_checkpoint_of_the_same_name_replaces_the_earlier_whole(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", {}, writer("one"))
    (tmp_path / "last" / "left.txt").write_text("over")
    write_checkpoint(tmp_path / "last", {}, writer("second"))
    assert (tmp_path / "last" / "note.txt").read_text() == "second"
    assert "left.txt" not in names(tmp_path / "last")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_write_that_fails_midway_leaves_the_earlier_checkpoint(tmp_path: Path, number: int) -> None:
    write_checkpoint(tmp_path / "last", {"step": 1}, writer("one"))

    def fails(folder: Path) -> None:
        writer("second")(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskError, match=f"last cannot be written: {os.strerror(number)}; free some space"):
        write_checkpoint(tmp_path / "last", {"step": 2}, fails)
    assert names(tmp_path) == ["last"]
    assert read_manifest(tmp_path / "last")["step"] == 1 and (tmp_path / "last" / "note.txt").read_text() == "one"


def test_a_disk_that_fills_up_under_the_tensors_is_said_in_one_line(tmp_path: Path) -> None:
    import resource

    write_checkpoint(tmp_path / "last", {"step": 1}, writer("one"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DiskError, match="last cannot be written: ") as caught:
            write_checkpoint(tmp_path / "last", {"step": 2}, writer("second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["last"] and read_manifest(tmp_path / "last")["step"] == 1


KILLED = """
import os, pathlib, signal, sys
from danube_sweep.storage import checkpoint
folder = pathlib.Path(sys.argv[1])
def whole(place):
    (place / "a").write_text("one")
def killed(place):
    (place / "a").write_text("two")
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.write_checkpoint(folder / "step-00000001", {"step": 1}, whole)
checkpoint.write_checkpoint(folder / "step-00000001", {"step": 2}, killed)
"""


def test_a_kill_midway_leaves_the_earlier_checkpoint_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    assert warm.run("-c", KILLED, tmp_path).returncode == -signal.SIGKILL
    left = [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert len(left) == 1
    kept = Checkpoints(tmp_path)
    assert kept.steps() == [1] and read_manifest(kept.folder(1))["step"] == 1
    write_checkpoint(kept.folder(2), {"step": 2}, writer("two"))
    kept.keep({2})
    assert names(tmp_path) == ["step-00000002"]


def test_only_whole_checkpoints_of_the_steps_asked_for_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (1, 9, 10, 200):
        write_checkpoint(kept.folder(step), {"step": step}, writer("some"))
    (tmp_path / "step-00000300").mkdir()
    (tmp_path / ".step-00000301.77.tmp").mkdir()
    assert kept.steps() == [1, 9, 10, 200]
    kept.keep({10, 200, None})
    assert names(tmp_path) == ["step-00000010", "step-00000200"] and kept.steps() == [10, 200]


def test_there_are_no_steps_before_the_first_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nowhere").steps() == []


# ----------------------------------------------------------------------------------------------------------- damage


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def config() -> Config:
    """Composed once: composing takes longer than everything else here."""
    return compose(["data.rows=60", *TINY, "precision=fp32", "lora.rank=2", "trainer.max_steps=2"])


def test_there_are_always_two_checkpoints_to_go_on_from(config: Config, tmp_path: Path) -> None:
    trial = activate(build(config), tmp_path / "run")
    trial.start(Collator(CPU))
    kept = Checkpoints(tmp_path / "run" / "checkpoints")
    for step, loss, steps in [(1, 3.0, [1]), (2, 2.0, [1, 2]), (3, 2.5, [2, 3]), (4, 1.0, [2, 4]), (5, 0.5, [4, 5])]:
        trial.done.step = step
        trial.best.take(step, {"log_loss": loss}, "log_loss")
        resume.save(trial, None)
        assert kept.steps() == steps


def test_a_trial_that_was_taken_over_while_it_wrote_leaves_the_others_checkpoints_elsewhere(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = activate(build(config), tmp_path / "run")
    trial.start(Collator(CPU))
    place_checkpoints(trial.where.folder, str(tmp_path / "disk"))
    kept, lease = resume.checkpoints_of(trial), Lease(tmp_path / "run" / ".claim", 100.0)
    assert lease.take()
    resume.save(trial, None)
    assert kept.steps() == [0]
    write = trained_weights.save_trained

    def hangs(folder: Path, model: AssembledModel, whole: None) -> None:
        write(folder, model, whole)
        (tmp_path / "run" / ".claim.lease-1").rename(tmp_path / "run" / ".claim.lease-7")  # the other process's
        write_checkpoint(kept.folder(9), {}, writer("of the new holder"))
        lease.beat()

    monkeypatch.setattr(trained_weights, "save_trained", hangs)
    trial.done.step = 1
    with pytest.raises(BusyError, match="was taken over by another process"):
        resume.save(trial, None)
    lease.release()
    assert kept.steps() == [0, 9] and names(kept.folder(9).parent)[-2:] == ["step-00000000", "step-00000009"]


@pytest.fixture
def trained(config: Config, tmp_path: Path) -> tuple[Parts, Path]:
    """A tiny trial and a checkpoint of it as it is written while it trains."""
    parts = build(config)
    trial = activate(parts, tmp_path / "run")
    trial.start(Collator(CPU))
    parts.loss(parts.batch([0, 1])).backward()
    trial.optimizer.step()
    pack = TrainingPack(parts.backbone)
    pack.arrange([trial])
    resume.save(trial, *pack.evaluate([trial], "validation"))
    return parts, resume.checkpoints_of(trial).folder(0)


FILES = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "head.safetensors",
    "predictions.safetensors",
    "training.safetensors",
]


def test_a_checkpoint_of_a_trial_holds_these_files(trained: tuple[Parts, Path]) -> None:
    _, folder = trained
    assert sorted(read_manifest(folder)["files"]) == FILES


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_in_any_file_is_noticed(trained: tuple[Parts, Path], file: str) -> None:
    target = trained[1] / file
    intact = target.read_bytes()
    for place in (0, len(intact) // 2, len(intact) - 1):
        content = bytearray(intact)
        content[place] ^= 1
        target.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{file} was changed or is missing since it was saved") as caught:
            read_manifest(trained[1])
        one_line(caught)
    target.write_bytes(intact)
    read_manifest(trained[1])


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_noticed(trained: tuple[Parts, Path], file: str) -> None:
    (trained[1] / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} was changed or is missing since it was saved") as caught:
        read_manifest(trained[1])
    one_line(caught)


def test_an_edited_alpha_is_noticed(trained: tuple[Parts, Path]) -> None:
    file = trained[1] / "adapter_config.json"
    before = file.read_text()
    file.write_text(re.sub(r'"lora_alpha": [\d.]+', '"lora_alpha": 64.5', before))
    assert file.read_text() != before
    with pytest.raises(CheckpointError, match=r"adapter_config\.json was changed"):
        read_manifest(trained[1])


def cut(manifest: str) -> str:
    return manifest[: len(manifest) // 2]


def other_format(manifest: str) -> str:
    return manifest.replace('"format": 1', '"format": 99')


def not_an_object(manifest: str) -> str:
    return "[1, 2]"


def files_is_a_list(manifest: str) -> str:
    return json.dumps({"format": 1, "files": ["a"]})


def without_files(manifest: str) -> str:
    return json.dumps({"format": 1})


def bytes_that_are_no_text(manifest: str) -> str:
    return manifest.replace("format", "f\udcffrmat")


@pytest.mark.parametrize(
    "damage", [cut, other_format, not_an_object, files_is_a_list, without_files, bytes_that_are_no_text]
)
def test_a_damaged_manifest_is_one_line(trained: tuple[Parts, Path], damage: Callable[[str], str]) -> None:
    file = trained[1] / "checkpoint.json"
    file.write_bytes(damage(file.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"checkpoint\.json (is damaged|has format 99)") as caught:
        read_manifest(trained[1])
    one_line(caught)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no checkpoint\.json"):
        read_manifest(tmp_path)


def reseal(folder: Path) -> None:
    """Hashes that fit again, as somebody would make them who edits a checkpoint on purpose."""
    manifest = json.loads((folder / "checkpoint.json").read_text())
    manifest["files"] = {name: content_hash(folder / name) for name in manifest["files"]}
    del manifest[checkpoint.SEAL]  # as in version 0.1
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    read_manifest(folder)


def test_a_changed_figure_in_a_manifest_is_found(trained: tuple[Parts, Path]) -> None:
    file = trained[1] / "checkpoint.json"
    text = file.read_text()
    assert text.count('"pad_id": 0') == 1
    file.write_text(text.replace('"pad_id": 0', '"pad_id": 1'))
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint\.json was changed since it was saved"):
        read_manifest(trained[1])


def with_nan(state: dict[str, torch.Tensor]) -> None:
    next(iter(state.values())).flatten()[0] = math.nan


def with_infinity(state: dict[str, torch.Tensor]) -> None:
    next(iter(state.values())).flatten()[0] = math.inf


def without_a_key(state: dict[str, torch.Tensor]) -> None:
    del state[sorted(state)[-1]]


def of_another_shape(state: dict[str, torch.Tensor]) -> None:
    name = sorted(state)[0]
    state[name] = state[name][..., :-1].contiguous()


@pytest.mark.parametrize("damage", [with_nan, with_infinity, without_a_key, of_another_shape])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "head.safetensors"])
def test_weights_that_are_missing_or_not_finite_are_refused_whatever_the_hashes_say(
    trained: tuple[Parts, Path], file: str, damage: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    parts, folder = trained
    state = load_file(folder / file)
    damage(state)
    save_file(state, folder / file)
    reseal(folder)
    with pytest.raises(CheckpointError, match="missing, of another shape or not finite") as caught:
        trained_weights.load_trained(folder, parts.model)
    one_line(caught)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "head.safetensors"])
def test_a_file_that_is_no_safetensors_is_refused(trained: tuple[Parts, Path], file: str) -> None:
    parts, folder = trained
    (folder / file).write_bytes(b"\x80\x04not one")
    reseal(folder)
    with pytest.raises(CheckpointError) as caught:
        trained_weights.load_trained(folder, parts.model)
    assert file in one_line(caught)


@pytest.mark.parametrize("key", ["trial", "pad_id"])
def test_another_trials_checkpoint_is_not_resumed(trained: tuple[Parts, Path], tmp_path: Path, key: str) -> None:
    parts, _ = trained
    other = activate(parts, tmp_path / "run")
    other.where.manifest[key] = "other"
    with pytest.raises(CheckpointError, match=f"was written with another {key}"):
        other.start(Collator(CPU))


# ------------------------------------------------------------------------------------------------------- no pickles


def test_nothing_in_the_package_reads_or_writes_a_pickle() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    found = []
    for file in Path(danube_sweep.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=aliases):
                    found += [alias.name for alias in aliases if alias.name.split(".")[0] in forbidden]
                case ast.ImportFrom(module=str(module)) if module.split(".")[0] in forbidden:
                    found.append(module)
                case ast.Call(func=ast.Attribute(attr="load" | "save", value=ast.Name(id="torch"))):
                    found.append(f"{file.name}:{node.lineno} torch.{node.func.attr}")
                case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                    found.append(f"{file.name} allow_pickle")
    assert not found


# -------------------------------------------------------------------------------------------------------- packed state

STATES: list[Any] = [
    {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 2)}, 7: {}}, "param_groups": [{"lr": 0.1}]},
    {"none": None, "yes": True, "text": "a", "int": 3, "float": math.pi, "nested": [[1], []], "empty": {}},
    {"bytes": torch.arange(5, dtype=torch.uint8), "half": torch.ones(2).bfloat16(), "scalar": torch.tensor(2)},
]


@pytest.mark.parametrize("state", STATES)
def test_a_packed_state_comes_back_through_json_and_safetensors(tmp_path: Path, state: Any) -> None:
    skeleton, tensors = pack_state(state)
    checkpoint.save_tensors(tensors, tmp_path / "state.safetensors")
    read = checkpoint.load_tensors(tmp_path / "state.safetensors") if tensors else {}
    again = unpack_state(json.loads(json.dumps(skeleton)), read)
    assert repr(again) == repr(state)


def test_infinities_and_large_numbers_survive(tmp_path: Path) -> None:
    state = {"best": math.inf, "loss": -math.inf, "tokens": 2**60, "tuple": (1, 2)}
    skeleton, _ = pack_state(state)
    assert unpack_state(json.loads(json.dumps(skeleton)), {}) == {**state, "tuple": [1, 2]}


def test_what_cannot_be_saved_is_refused() -> None:
    with pytest.raises(TypeError, match="a state of type set cannot be saved"):
        pack_state({"a": {1, 2}})
