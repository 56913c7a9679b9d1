"""A model of the hub is known by its commit and by the tensors of its download, and its runs accept either name."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from rich.console import Console
from runs import CPU, train
from workbench import save_base

from danube_sweep.composer import Composer
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config
from danube_sweep.errors import ConfigError, ModelError
from danube_sweep.inference.predict import load_run
from danube_sweep.storage.checkpoint import read_manifest
from danube_sweep.sweeping.start_sweep import plan_grid
from danube_sweep.terminal.screen import Terminal

Tiny = Callable[..., Config]

FIRST, SECOND = "1" * 40, "2" * 40
STEPS = ["trainer.max_steps=1", "data.max_length=48"]


@pytest.fixture
def snapshot(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model `me/NAME` in the hub's cache, laid out as the hub's client does, with `main` at its first commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / f"models--me--{tmp_path.name}"
    save_base(tiny(), place / "snapshots" / FIRST)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(FIRST)
    return place / "snapshots" / FIRST


def test_the_commit_counts_and_is_kept_with_the_run(tiny: Tiny, tmp_path: Path, snapshot: Path) -> None:
    config = tiny(*STEPS, f"model.path=me/{tmp_path.name}")
    assert config.model.commit == FIRST
    assert trial_hash(tiny(*STEPS, f"model.path=me/{tmp_path.name}", f"model.revision={FIRST}")) == trial_hash(config)
    moved = replace(config, model=replace(config.model, commit=SECOND))
    assert trial_hash(moved) != trial_hash(config)
    train(config, tmp_path / "run")
    (snapshot.parent.parent / "refs" / "main").write_text(SECOND)
    stored = load_config(tmp_path / "run" / "config.yaml")
    assert stored.model.commit == FIRST and trial_hash(stored) == trial_hash(config)
    assert read_manifest(tmp_path / "run" / "adapter")["hub"] == f"me/{tmp_path.name}@{FIRST}"


def test_a_run_goes_on_and_predicts_by_the_name_and_by_the_folder(tiny: Tiny, tmp_path: Path, snapshot: Path) -> None:
    shutil.copytree(snapshot, tmp_path / "copy")
    named, folder = tiny(*STEPS, f"model.path=me/{tmp_path.name}"), tiny(*STEPS, f"model.path={tmp_path / 'copy'}")
    assert trial_hash(named) != trial_hash(folder)
    for first, second, run in ((named, folder, tmp_path / "by-name"), (folder, named, tmp_path / "by-folder")):
        result = train(first, run)
        assert train(second, run) == result
        assert result["trial"] == trial_hash(first)
        assert json.loads((run / "environment.json").read_text())["trial"] == trial_hash(first)
        before = load_run(run, CPU)
        stored = yaml.safe_load((run / "config.yaml").read_text())
        stored["model"] |= {"path": second.model.path, "commit": second.model.commit}
        (run / "config.yaml").write_text(yaml.safe_dump(stored))
        assert load_run(run, CPU).backbone.fingerprint == before.backbone.fingerprint


def test_a_name_without_a_known_commit_is_refused_but_planned(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("model.path=me/unknown")
    with pytest.raises(ModelError, match=r"model\.path=me/unknown: the hub cannot be reached"):
        trial_hash(config)
    shown = io.StringIO()
    terminal = Terminal(Console(file=shown, width=200), plain=True)
    cell = ["model.path=me/unknown", "data.rows=60", "device=cpu", "tracking=none"]
    assert plan_grid(tmp_path / "sweep", [[*cell, "sweep.dry_run=true"]], Composer(), terminal) is None
    assert "me/unknown: its commit is not known without a network" in shown.getvalue()
    with pytest.raises(ConfigError, match="the hub cannot be reached"):
        plan_grid(tmp_path / "sweep", [cell], Composer(), terminal)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("commit", ["main", "abc123", "G" * 40])
def test_a_commit_that_is_none_is_refused(tiny: Tiny, commit: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.commit=.*give model\.revision"):
        tiny(f"model.commit={commit}")
