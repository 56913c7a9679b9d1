"""What an earlier version made goes on: its hashes are the same, its folders are ranked, resumed and used."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from runs import command

from danube_sweep.composer import compose
from danube_sweep.config.identity import trial_hash

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


@pytest.mark.parametrize(("overrides", "expected"), HASHES, ids=[" ".join(row[0])[:40] for row in HASHES])
def test_hashes_are_those_of_before(overrides: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(KEPT / "files")
    assert trial_hash(compose(overrides)) == expected


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


def test_a_stopped_run_is_resumed_to_the_undisturbed_end(kept: Path) -> None:
    done = command("resume", "stopped", cwd=kept)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 5 of 8" in done.stdout
    assert log_loss(kept / "stopped") == pytest.approx(EXPECTED["run"], abs=CLOSE)


def test_a_sweep_is_ranked_and_resumed_to_the_undisturbed_end(kept: Path) -> None:
    ranked = command("rank", "sweep", cwd=kept)
    assert ranked.returncode == 0, ranked.stderr
    assert "2 finished" in ranked.stdout
    before = {path: (path / "result.json").stat().st_mtime_ns for path in (kept / "sweep").glob("00[12]*")}
    assert len(before) == 2
    done = command("resume", "sweep", cwd=kept)
    assert done.returncode == 0, done.stderr
    assert "4 trials: 4 finished" in done.stdout
    assert {path: (path / "result.json").stat().st_mtime_ns for path in before} == before
    for number, path in enumerate(sorted((kept / "sweep").glob("00*")), 1):
        assert log_loss(path) == pytest.approx(EXPECTED[f"00{number}"], abs=CLOSE)
