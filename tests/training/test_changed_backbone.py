"""Two backbones that version 1's sample could not tell apart are two everywhere: trials, caches, predict and resume."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import CPU, train
from workbench import save_base

from danube_sweep.config import first_version
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import CheckpointError
from danube_sweep.inference.predict import load_run
from danube_sweep.storage.sweep_folder import SweepFolder

Tiny = Callable[..., Config]

SMALL = ["model.shape.vocab_size=12000", "lora.last_k=1", "trainer.max_steps=2", "precision=fp32", "data.max_length=48"]


def negate_between_the_samples(file: Path) -> None:
    """Turns the sign of the weights of the first block that none of version 1's 64 samples reads."""
    content = np.fromfile(file, dtype=np.uint8)
    length = int(content[:8].view(np.int64)[0])
    header = json.loads(content[8 : 8 + length].tobytes())
    read = np.zeros(len(content), dtype=bool)
    for place in range(64):
        start = (len(content) - 65536) * place // 63
        read[start : start + 65536] = True
    changed = 0
    for name, described in header.items():
        if name.startswith("model.layers.0."):
            first, last = (8 + length + offset for offset in described["data_offsets"])
            signs = np.arange(first + 3, last, 4)
            content[signs[~read[signs]]] ^= 0x80
            changed += int((~read[signs]).sum())
    assert changed > 1000
    content.tofile(file)


@pytest.fixture
def models(tiny: Tiny, tmp_path: Path) -> tuple[Path, Path]:
    """A model, and another that only version 1 takes for the same."""
    save_base(tiny(*SMALL), tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    negate_between_the_samples(tmp_path / "other" / "model.safetensors")
    assert len({first_version.weights_fingerprint(tmp_path / name) for name in ("one", "other")}) == 1
    return tmp_path / "one", tmp_path / "other"


def test_they_are_two_trials_of_a_sweep(tiny: Tiny, tmp_path: Path, models: tuple[Path, Path]) -> None:
    configs = [tiny(*SMALL, f"model.path={model}") for model in models]
    assert len({trial_hash(config, version=1) for config in configs}) == 1
    added = SweepFolder(tmp_path / "sweep").add([(config, [str(n)], None) for n, config in enumerate(configs)])
    assert [new for _, new in added] == [True, True]


def test_neither_predict_nor_resume_nor_kept_states_take_one_for_the_other(
    tiny: Tiny, tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    one, other = (tiny(*SMALL, f"model.path={model}") for model in models)
    kept = [replace(config, data=replace(config.data, cache_prefix=True)) for config in (one, other)]
    first = train(kept[0], tmp_path / "first")
    states = len(os.listdir(tmp_path / "cache" / "prefix"))
    second = train(kept[1], tmp_path / "second")
    assert len(os.listdir(tmp_path / "cache" / "prefix")) == 2 * states
    without = train(other, tmp_path / "without")
    assert second["validation"]["log_loss"] == pytest.approx(without["validation"]["log_loss"], abs=1e-6)
    assert abs(second["validation"]["log_loss"] - first["validation"]["log_loss"]) > 1e-5

    load_run(tmp_path / "first", CPU)
    shutil.copy(models[1] / "model.safetensors", models[0] / "model.safetensors")
    with pytest.raises(CheckpointError, match="was trained over another backbone"):
        load_run(tmp_path / "first", CPU)
    with pytest.raises(CheckpointError, match="holds another trial"):
        train(kept[0], tmp_path / "first")
