"""An ensemble predicts as its runs do one by one, and a sweep as its best trial."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import sweeps
from runs import CPU

from danube_sweep.cli import main
from danube_sweep.inference.predict import load_run, predict_file
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> sweeps.Ran:
    place = tmp_path_factory.mktemp("two") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place.parent / "cache"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return sweeps.run(sweeps.planned(place, [["lora.rank=2"], ["lora.rank=4"]]))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "test.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["id", "prompt", "response_a", "response_b"], *([k, f'["{k}?"]', '["far"]', '["near"]'] for k in range(5))]
        )
    return file


def numbers(file: Path) -> np.ndarray:
    with file.open(newline="") as stream:
        return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(stream))[1:]])


def members(ran: sweeps.Ran) -> list[Weighted]:
    paths = [ran[1].path, ran[2].path]
    hashes = [str((RunFolder(path).read_result() or {})["trial"]) for path in paths]
    return [
        Weighted("first", 0.75, 2.0, [paths[0]], [hashes[0]]),
        Weighted("second", 0.25, 1.0, [paths[1]], [hashes[1]]),
    ]


def test_an_ensemble_averages_what_its_runs_answer_at_their_temperatures(
    ran: sweeps.Ran, rows: Path, tmp_path: Path
) -> None:
    EnsembleFolder(tmp_path / "best").write(members(ran), {})
    assert main.main(["predict", str(tmp_path / "best"), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    own = []
    for number in (1, 2):
        predict_file(load_run(ran[number].path, CPU), rows, tmp_path / f"{number}.csv")
        own.append(numbers(tmp_path / f"{number}.csv"))
    wanted = 0.75 * tempered(own[0], 2.0, shares=True) + 0.25 * own[1]
    assert numbers(tmp_path / "out.csv") == pytest.approx(wanted, abs=1e-9)


def test_a_sweep_predicts_with_its_best_trial_and_says_which(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ran.plan.folder.path
    assert main.main(["predict", str(sweep), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    losses = [(ran.result(number) or {})["validation"]["log_loss"] for number in (1, 2)]
    best = ran[1 + int(np.argmin(losses))].path
    captured = capsys.readouterr()
    assert f"its trial {best.name} (validation/log_loss {min(losses):.4f})" in captured.out + captured.err
    predict_file(load_run(best, CPU), rows, tmp_path / "alone.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_member_that_has_gone_or_is_another_is_one_line(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(ran[1].path, moved)
    first, second = members(ran)
    ensemble = EnsembleFolder(tmp_path / "best")
    for runs, hashes, line in (
        ([tmp_path / "gone"], first.hashes, "of the member first is gone; bring it back"),
        ([moved], ["0" * 32], "is another trial than the one in"),
    ):
        ensemble.write([Weighted("first", 0.5, 1.0, runs, hashes), second], {})
        assert main.main(["predict", str(ensemble.path), str(rows), "-o", str(tmp_path / "out.csv")]) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
