"""An ensemble predicts as its runs do one by one, and a sweep as its best trial."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sweeps
from runs import CPU, train

from danube_sweep.cli import main
from danube_sweep.config.schema import Target
from danube_sweep.config.stored import load_config
from danube_sweep.head.kinds.bradley_terry_ties import BradleyTerryHead
from danube_sweep.inference.predict import Form, load_run, open_run, predict_file
from danube_sweep.inference.predict_ensemble import Part, checked_requests
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.storage import predictions
from danube_sweep.storage.decision_file import write_decisions
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.predictions import Answered
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


def decided(ran: sweeps.Ran, folder: Path, rule: dict[str, object]) -> None:
    write_decisions(folder, {"metric": "macro_f1", "classes": open_run(ran[1].path).classes, "rule": rule,
                             "worth": {}, "said": "macro_f1 0.1 -> 0.2 on unseen rows"})  # fmt: skip


def labels_of(file: Path) -> list[str]:
    with file.open(newline="") as stream:
        return [row[1] for row in list(csv.reader(stream))[1:]]


def test_labels_are_those_of_the_rule_that_is_kept_and_likeliest_leaves_it_out(
    ran: sweeps.Ran, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, out = tmp_path / "best", tmp_path / "out.csv"
    EnsembleFolder(best).write(members(ran), {})
    command = ["predict", str(best), str(rows), "-o", str(out), "--overwrite"]
    assert main.main(command) == 0
    sure, classes = numbers(out), open_run(ran[1].path).classes
    biases = [0.0, 0.0, 0.05 + float((np.log(sure).max(axis=1) - np.log(sure[:, 2])).max())]
    decided(ran, best, {"kind": "biases", "numbers": biases})
    assert main.main([*command, "--labels"]) == 0
    captured = capsys.readouterr()
    assert "labels are decided by the rule for macro_f1" in captured.out + captured.err
    assert labels_of(out) == [classes[2]] * 5
    assert main.main([*command, "--labels", "--likeliest"]) == 0
    assert labels_of(out) == [classes[place] for place in sure.argmax(axis=1)]
    capsys.readouterr()
    for words, line in (
        (["--likeliest"], "--likeliest is for labels; give --labels, or leave it out"),
        (["--labels", "--calibrate"], "--calibrate changes what the rule of the labels was fitted on"),
    ):
        assert main.main([*command, *words]) == 2
        assert line in capsys.readouterr().err
    EnsembleFolder(best).write(members(ran)[:1], {})  # made again, of others
    assert main.main([*command, "--labels"]) == 2
    assert "belongs to what" in capsys.readouterr().err
    decided(ran, best, {"kind": "biases", "numbers": [1.0]})
    (best / "decisions.json").write_text((best / "decisions.json").read_text().replace("biases", "no"))
    assert main.main([*command, "--labels"]) == 2
    assert "decisions.json is damaged; make it again with danube-sweep decide" in capsys.readouterr().err


def test_decide_says_what_it_gains_and_keeps_a_rule_only_if_it_does(
    ran: sweeps.Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, classes = EnsembleFolder(tmp_path / "best"), open_run(ran[1].path).classes
    best.write(members(ran), {})
    random = np.random.default_rng(0)
    sure = random.dirichlet([2, 1, 1], 400)
    labels = np.eye(3)[[random.choice(3, p=one) for one in sure]]

    def kept(file: Path, answers: np.ndarray) -> None:
        answered = Answered([str(k) for k in range(400)], np.ones(400), labels, np.ones(400), answers)
        predictions.write(file, Target.one, classes, answered)

    kept(best.predictions, sure * [1.0, 0.3, 1.0] / (sure * [1.0, 0.3, 1.0]).sum(axis=1, keepdims=True))
    assert main.main(["decide", str(best.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "400 rows: macro_f1 0." in said and "on unseen rows (+0." in said and f"{classes[1]} +" in said
    kept(tmp_path / "other.parquet", labels * 0.9 + 0.05)
    assert main.main(["decide", str(best.path), "--predictions", str(tmp_path / "other.parquet")]) == 0
    assert "no rule is kept: it gains nothing on unseen rows, so the likeliest class stays" in capsys.readouterr().out
    assert not (best.path / "decisions.json").exists()
    best.predictions.unlink()
    for words, line in (
        ([str(best.path)], "is missing, and a rule is fitted on predictions of rows with labels"),
        ([str(tmp_path)], "is no run, sweep or ensemble; give the folder of one"),
        ([str(best.path), "--metric", "accuracy"], "--metric accuracy: the answers of this head are decided for macro"),
    ):
        assert main.main(["decide", *words]) == 2
        assert line in capsys.readouterr().err


def test_each_member_is_asked_both_ways_if_its_own_head_needs_that(ran: sweeps.Ran, rows: Path, tmp_path: Path) -> None:
    config = load_config(ran[1].folder.config)
    train(replace(config, head=BradleyTerryHead(lr=1e-3)), tmp_path / "symmetric")
    parts = [Part(open_run(path), 0.5, 1.0) for path in (tmp_path / "symmetric", ran[1].path)]
    for order in (parts, parts[::-1]):
        asked = checked_requests(order, rows, tmp_path / "out.csv", Form(swap=True))
        assert [one.swap for one in asked] == [not part.run.config.head.symmetric for part in order]
