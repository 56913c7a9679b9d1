"""A quantised backbone read from the cache is the one that quantising gives, to the last bit, or is made again."""

import logging
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import warm
from conftest import ROOT
from covering import one_in
from runs import metrics
from runs import train as train_run
from test_families import of_family
from workbench import load, save_base

from danube_sweep.config.schema import Config
from danube_sweep.model.backbone import Backbone

Tiny = Callable[..., Config]

STORED = {
    "nf4": ["precision=nf4"],
    "nf4_dq": ["precision=nf4_dq"],
    "fp4": ["precision=fp4"],
    "int8": ["precision=int8"],
    "nf4 in fp32": ["precision=nf4", "precision.compute=fp32"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; returns the folder of its quantised backbones."""
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quantised"


def entries(cache: Path) -> list[Path]:
    return sorted(folder for folder in cache.iterdir() if folder.is_dir())


def whole_state(backbone: Backbone) -> dict[str, Any]:
    """Every tensor and every setting of every quantised weight."""
    state: dict[str, Any] = {"fingerprint": backbone.fingerprint}
    for module in backbone.modules():
        state |= {f"{type(module).__name__}.{name}": value for name, value in module.state_dict().items()}
    for name, weight in backbone.named_parameters():
        state |= {name: weight.detach(), f"{name} frozen": not weight.requires_grad}
        settings = getattr(weight, "quant_state", None)
        for level, owner in enumerate([weight, settings, getattr(settings, "state2", None)]):
            if owner is not None:
                state |= {f"{name}.{level}.{key}": value for key, value in vars(owner).items()}
    return state


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            other = second[name]
            assert torch.equal(value, other) and value.dtype == other.dtype and value.device == other.device, name
        elif isinstance(value, bool | int | float | str | torch.dtype | torch.Size | None):
            assert value == second[name], name


@pytest.mark.parametrize("overrides", STORED.values(), ids=STORED)
@pytest.mark.parametrize("source", ["random", "folder", "encoder", "tied"])
def test_what_is_read_is_what_was_quantised(
    tiny: Tiny, tmp_path: Path, cache: Path, source: str, overrides: list[str]
) -> None:
    chosen = {"encoder": of_family("deberta-v2"), "tied": of_family("gemma", "head=causal")}.get(source, [])
    if source == "folder":
        save_base(tiny("model.init_seed=3"), tmp_path / "model")
        chosen = [f"model.path={tmp_path / 'model'}", "head=causal"]
    config = tiny(*overrides, *chosen)
    made = load(config)
    (entry,) = entries(cache)
    assert sorted(file.name for file in entry.iterdir()) == ["checkpoint.json", "model.safetensors"]
    written_ns = (entry / "model.safetensors").stat().st_mtime_ns
    read = load(config)
    assert_same(whole_state(made), whole_state(read))
    assert (entry / "model.safetensors").stat().st_mtime_ns == written_ns
    ids_BT, mask_BT = torch.tensor([[1, 5, 6, 7]]), torch.ones(1, 4, dtype=torch.bool)
    states = []
    for backbone in (made, read):
        backbone.body.eval()
        states.append(backbone.hidden(ids_BT, mask_BT))
    assert torch.equal(*states)


@pytest.mark.parametrize("overrides", one_in(3, STORED.values()), ids=one_in(3, STORED))
def test_a_trial_over_what_was_read_has_the_losses_of_one_that_quantised(
    tiny: Tiny, tmp_path: Path, cache: Path, overrides: list[str]
) -> None:
    config = tiny(*overrides, "trainer.max_steps=4", "lora.dropout=0.1", "trainer.log_every=1")
    for name in ("quantised", "read"):
        train_run(config, tmp_path / name)
        assert len(entries(cache)) == 1
    for part in ("train", "validation"):
        assert metrics(tmp_path / "quantised", part) == metrics(tmp_path / "read", part)


@pytest.mark.usefixtures("bf16_host")
def test_whatever_changes_the_bytes_has_an_entry_of_its_own(tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    save_base(tiny(), tmp_path / "model")
    folder = f"model.path={tmp_path / 'model'}"
    different = [*STORED.values(), ["precision=nf4", "model.init_seed=1"], ["precision=nf4", folder]]
    different.append(["precision=nf4", folder, "head=causal"])
    for number, overrides in enumerate(different, start=1):
        load(tiny(*overrides))
        assert len(entries(cache)) == number
    for same in (["precision=nf4", "lora=none"], ["precision=nf4", "head=causal"], ["precision=fp32"]):
        load(tiny(*same))
    assert len(entries(cache)) == len(different)


def test_a_weight_that_no_fingerprint_samples_is_not_taken_from_the_cache(tiny: Tiny, tmp_path: Path) -> None:
    save_base(tiny(), tmp_path / "model")
    config = tiny(f"model.path={tmp_path / 'model'}", "precision=nf4")
    before = load(config)
    save_base(tiny("model.init_seed=1"), tmp_path / "model")
    after = load(config)
    assert not torch.equal(before.body.embed_tokens.weight, after.body.embed_tokens.weight)


def cut_weights(entry: Path) -> None:
    file = entry / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def flip_a_byte(entry: Path) -> None:
    file = entry / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def drop_weights(entry: Path) -> None:
    (entry / "model.safetensors").unlink()


def cut_manifest(entry: Path) -> None:
    file = entry / "checkpoint.json"
    file.write_text(file.read_text()[:40])


@pytest.mark.parametrize("damage", [cut_weights, flip_a_byte, drop_weights, cut_manifest])
def test_a_damaged_entry_is_said_and_made_again(
    tiny: Tiny, cache: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    wanted = whole_state(load(tiny("precision=nf4")))
    (entry,) = entries(cache)
    damage(entry)
    assert_same(whole_state(load(tiny("precision=nf4"))), wanted)
    assert f"{entry} is damaged; quantising again" in caplog.text
    caplog.clear()
    assert_same(whole_state(load(tiny("precision=nf4"))), wanted)
    assert entries(cache) == [entry] and not caplog.text


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(
    tiny: Tiny, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2**29))
    load(tiny("precision=nf4"))
    assert entries(cache) == []
    assert f"{cache} has 0.5 GiB left; the quantised backbone was not cached" in caplog.text


def test_a_cache_that_cannot_be_written_is_done_without(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = whole_state(load(tiny("precision=nf4")))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert_same(whole_state(load(tiny("precision=nf4"))), wanted)
    assert "the quantised backbone was not cached" in caplog.text


# ---------------------------------------------------------------------------------------------------------- processes

LOAD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from conftest import ROOT, tiny_config
from danube_sweep.storage import checkpoint
from danube_sweep.training.checks import frozen_digest
from workbench import load
{change}
print(frozen_digest(load(tiny_config("precision=nf4", "precision.compute=bf16"))))
"""
DIE_WHILE_WRITING = """
def half(tensors, file, metadata):
    file.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
"""


def started(change: str = "") -> subprocess.Popen[str]:
    script = LOAD.format(tests=str(ROOT / "tests"), change=change)
    return warm.popen("-c", script)


def test_two_processes_at_once_end_with_one_entry_and_the_same_weights(cache: Path) -> None:
    ended = [process.communicate(timeout=300) for process in (started(), started())]
    first, second = (stdout.strip() for stdout, _ in ended)
    assert first == second != ""
    assert len(entries(cache)) == 1 and not any("damaged" in stderr for _, stderr in ended)


@pytest.mark.usefixtures("bf16_host")
def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(
    tiny: Tiny, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = started(DIE_WHILE_WRITING)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    (left,) = entries(cache)
    assert left.name.endswith(".tmp") and [file.name for file in left.iterdir()] == ["model.safetensors"]
    load(tiny("precision=nf4"))
    (entry,) = entries(cache)
    assert not entry.name.endswith(".tmp") and not caplog.text
