"""What an earlier version made goes on: its hashes are the same, its folders are ranked, resumed and used."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, compose
from runs import command, metrics, train

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.training.train_one_trial import as_begun

KEPT = ROOT / "tests" / "kept"
HASHES = json.loads((KEPT / "hashes.json").read_text())
EXPECTED = json.loads((KEPT / "expected.json").read_text())
CLOSE = 2e-4
"""CPUs add in different orders: the losses of eight steps of a tiny trial differ by less."""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A copy of the folders, to be written to."""
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def log_loss(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text())["validation"]["log_loss"])


def stated_by_version_1(overrides: list[str]) -> list[str]:
    """What version 1's config.yaml states of its defaults, where today's differ."""
    has_alpha = not any(f"lora={other}" in overrides for other in ("none", "full", "ia3", "vera", "peft"))
    rate = [] if "optimizer.lr" in " ".join(overrides) else ["optimizer.lr=${model.lr}"]
    return ["data.batching=bucketed", "data.order_seed=0", *rate, *(["lora.alpha=32"] if has_alpha else [])]


PINNED = [(version, *row) for version in HASHES for row in HASHES[version]]


@pytest.mark.usefixtures("bf16_host")
@pytest.mark.parametrize(("version", "overrides", "expected"), PINNED)
def test_hashes_are_those_of_before(
    version: str, overrides: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change that is meant to change version 2: `python tests/kept/pin.py`. Version 1 never changes."""
    monkeypatch.chdir(KEPT / "files")
    stated = stated_by_version_1(overrides) if version == "1" else []
    assert trial_hash(compose([*stated, *overrides]), int(version)) == expected


def test_a_folder_of_a_later_version_is_not_guessed_at() -> None:
    with pytest.raises(CheckpointError, match="version 3, and this danube_sweep knows up to 2; upgrade"):
        trial_hash(compose(), 3)


def test_a_finished_run_predicts_as_it_did(kept: Path) -> None:
    done = command("predict", "run", "rows.csv", "-o", "now.csv", cwd=kept)
    assert done.returncode == 0, done.stderr
    with (kept / "predicted.csv").open() as before, (kept / "now.csv").open() as now:
        for old, new in zip(csv.DictReader(before), csv.DictReader(now), strict=True):
            assert old.keys() == new.keys()
            assert [float(value) for value in new.values()] == pytest.approx(list(map(float, old.values())), abs=CLOSE)


def test_a_finished_run_is_exported(kept: Path) -> None:
    done = command("export", "run", "exported", "--merge", cwd=kept)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (kept / "exported" / "model.safetensors").is_file()


def test_a_half_trained_run_of_an_older_arithmetic_starts_again_and_says_so(kept: Path, tmp_path: Path) -> None:
    done = command("resume", "stopped", cwd=kept)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "step-00000005 follows version 1 of the training arithmetic and is not continued" in said
    aside = kept / "stopped" / "checkpoints-of-version-1"
    assert f"its checkpoints are kept in {aside.relative_to(kept)}" in said
    assert sorted(step.name for step in aside.iterdir()) == ["step-00000004", "step-00000005"]
    train(load_config(KEPT / "stopped" / "config.yaml"), tmp_path / "fresh")
    assert metrics(kept / "stopped", "train") == metrics(tmp_path / "fresh", "train")


def test_a_sweep_is_ranked_and_resumed_and_its_finished_trials_stay(kept: Path) -> None:
    ranked = command("rank", "sweep", cwd=kept)
    assert ranked.returncode == 0, ranked.stderr
    assert "2 finished" in ranked.stdout
    before = {path: (path / "result.json").stat().st_mtime_ns for path in (kept / "sweep").glob("00[12]*")}
    assert len(before) == 2
    done = command("resume", "sweep", cwd=kept)
    assert done.returncode == 0, done.stderr
    assert "4 trials: 4 finished" in done.stdout
    assert "begun by version 1 of the hashes and keeps them" in " ".join(done.stdout.split())
    assert {path: (path / "result.json").stat().st_mtime_ns for path in before} == before
    for number, path in enumerate(sorted((kept / "sweep").glob("00[12]*")), 1):
        assert log_loss(path) == pytest.approx(EXPECTED[f"00{number}"], abs=CLOSE)
    assert [path.parent.name[:3] for path in (kept / "sweep").glob("*/checkpoints-of-version-1")] == ["003"]


def test_the_command_of_an_old_sweep_finds_its_trials_and_a_new_trial_joins_under_its_rules(kept: Path) -> None:
    """Defaults have changed since: the same words are the same trial all the same."""
    folder = SweepFolder(kept / "sweep")
    cells = [["seed=7" if one.startswith("seed=") else one for one in folder.entries()[0].overrides]]
    cells = [*(entry.overrides for entry in folder.entries()[:2]), *cells]
    added = folder.add([(compose(cell), cell, None) for cell in cells])
    assert [(entry.number, new) for entry, new in added] == [(1, False), (2, False), (5, True)]
    assert [entry.hash_version for entry in folder.entries()] == [1] * 5
    config = compose(cells[2])
    assert added[2][0].hash == trial_hash(config, version=1) != trial_hash(config)
    assert RunFolder(added[2][0].path).hash_version() == 1


def test_an_agent_or_launcher_in_an_old_sweep_gets_the_trial_that_the_folder_states(kept: Path) -> None:
    entry = SweepFolder(kept / "sweep").entries()[0]
    stated = load_config(entry.folder.config)
    assert as_begun(compose(entry.overrides), entry.path) == stated != compose(entry.overrides)
    assert as_begun(stated, kept) is stated
