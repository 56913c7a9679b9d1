"""The whole path: a sweep, an ensemble of it, its best settings on all rows, predictions, a scored submission."""

import csv
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import sweeps
from conftest import TINY, compose
from pyarrow import compute, parquet
from runs import CPU, StopAfter, metrics, train
from safetensors.torch import load_file
from sklearn.metrics import log_loss

import danube_sweep as ds
from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.stored import load_config
from danube_sweep.data.parts import load_parts
from danube_sweep.errors import Interrupted
from danube_sweep.inference.predict import load_run, predict_file
from danube_sweep.inference.score_test import score_test
from danube_sweep.results.calibration import calibrate
from danube_sweep.results.refit_settings import find_chosen, seeds_of, steps_of
from danube_sweep.storage.checkpoint import read_manifest
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.files import read_json
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping import resume_sweep, start_sweep, train_refit
from danube_sweep.terminal.screen import Terminal

SHORT = [*TINY, "data.rows=40", "trainer.max_steps=4", "trainer.validate_every=2"]
NAMES = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refit")


@pytest.fixture(scope="module")
def swept(place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        cells = [[*SHORT, f"lora.rank={rank}"] for rank in (2, 4)]
        return sweeps.run(sweeps.planned(place / "sweep", cells)).plan.folder.path


@pytest.fixture(scope="module")
def refitted(swept: Path, place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert main.main(["refit", str(swept), "--seeds", "2", "-o", str(place / "final")]) == 0
    return place / "final"


@pytest.fixture(scope="module")
def rows(place: Path) -> Path:
    file = place / "test.csv"
    with file.open("w", newline="") as stream:
        written = csv.writer(stream)
        written.writerow(["id", "prompt", "response_a", "response_b"])
        written.writerows([k, f'["{k}?"]', '["far"]', '["near"]'] for k in range(4))
    return file


def answers(file: Path) -> np.ndarray:
    with file.open(newline="") as stream:
        return np.array([[float(row[name]) for name in NAMES] for row in csv.DictReader(stream)])


def result(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "result.json").read_text()))


def test_a_refit_of_two_seeds_averages_two_models_of_one_pack(
    refitted: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = SweepFolder(refitted / "trials").entries()
    assert [result(entry.path)["measured"]["packed"] for entry in entries] == [2, 2]  # type: ignore[index]
    assert main.main(["predict", str(refitted), str(rows), "-o", str(tmp_path / "submission.csv")]) == 0
    own = []
    for entry in entries:
        predict_file(load_run(entry.path, CPU), rows, tmp_path / "one.csv")
        own.append(answers(tmp_path / "one.csv"))
    found = answers(tmp_path / "submission.csv")
    assert found == pytest.approx((own[0] + own[1]) / 2, abs=1e-9)
    labels = [0, 1, 2, 0]
    by_hand = -np.mean(np.log(((own[0] + own[1]) / 2)[range(4), labels]))
    assert log_loss(labels, found, labels=[0, 1, 2]) == pytest.approx(by_hand)


def test_trials_of_a_sweep_have_one_tokenizer_on_the_disk_and_each_of_them_whole(swept: Path) -> None:
    first, second = sorted(swept.glob("*_*/adapter/tokenizer.json"))
    assert first.samefile(second)
    (kept,) = (swept / "tokenizers").iterdir()
    assert kept.samefile(first)
    for run in (first, second):
        read_manifest(run.parent)


def test_a_refit_trains_on_the_rows_of_both_parts_and_has_no_metric(refitted: Path, swept: Path) -> None:
    before = result(find_chosen(swept, 1)[0][0].trials[0].folder.path)
    for entry in SweepFolder(refitted / "trials").entries():
        found = result(entry.path)
        assert found["rows"] == {"train": sum(before["rows"].values())} == {"train": 40}  # type: ignore[attr-defined]
        assert found["validation"] == {} and found["best_step"] is None
        assert not (entry.path / "predictions.parquet").exists()
        data = load_config(entry.folder.config).data
        assert {one.id for one in load_parts(data).train} == {str(k) for k in range(1, 41)}


def test_a_refit_is_the_trial_that_its_overrides_describe(refitted: Path) -> None:
    for entry in SweepFolder(refitted / "trials").entries():
        words = [one for one in entry.overrides if not one.startswith("sweep.")]
        assert trial_hash(compose(words)) == entry.hash


def test_steps_are_the_best_step_times_the_growth_of_the_training_part(swept: Path) -> None:
    (chosen,), _ = find_chosen(swept, 1)
    best = int(result(chosen.trials[0].folder.path)["best_step"])  # type: ignore[call-overload]
    steps = steps_of(chosen, load_config(chosen.trials[0].folder.config))
    assert (steps.scheduled, steps.stop) == (5, round(best * 40 / 32))  # 4 steps on 32 rows, and 8 more rows
    assert seeds_of(chosen, 3) == [0, 1, 2]


def test_a_refit_keeps_the_promise_and_prints_it(refitted: Path, swept: Path) -> None:
    (chosen,), _ = find_chosen(swept, 1)
    value = result(chosen.trials[0].folder.path)["validation"]["log_loss"]  # type: ignore[index]
    (kept,) = read_json(refitted / "refit.json")["rows"]
    assert kept["promised"] == chosen.promise.said() and f"validation/log_loss {value:.4f}, 95 %" in kept["promised"]
    assert chosen.promise.interval is not None and chosen.promise.interval[0] < value < chosen.promise.interval[1]


def test_python_has_the_average_of_a_refit(refitted: Path, rows: Path, tmp_path: Path) -> None:
    loaded = ds.load(refitted)
    assert isinstance(loaded, ds.Ensemble) and loaded.members()["weight"].tolist() == [0.5, 0.5]
    assert [run.path.parent for run in loaded.runs] == [(refitted / "trials").absolute()] * 2
    assert main.main(["predict", str(refitted), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    assert loaded.predict(rows, accelerator="cpu")[NAMES].to_numpy() == pytest.approx(answers(tmp_path / "out.csv"))


def test_a_calibrated_run_answers_at_the_temperature_of_its_validation_rows(
    swept: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = SweepFolder(swept).entries()[0].path
    assert main.main(["predict", "--calibrate", str(run), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    found = calibrate(run / "predictions.parquet")
    assert found.said() in capsys.readouterr().out
    predict_file(load_run(run, CPU), rows, tmp_path / "plain.csv")
    wanted = answers(tmp_path / "plain.csv") ** (1 / found.temperature)
    assert answers(tmp_path / "out.csv") == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), abs=1e-6)


def test_a_refit_is_calibrated_on_predictions_of_its_sweep(
    refitted: Path, swept: Path, rows: Path, tmp_path: Path
) -> None:
    table = parquet.read_table(SweepFolder(swept).entries()[0].path / "predictions.parquet")
    parquet.write_table(table.drop_columns(["loss"]), tmp_path / "oof.parquet")  # as danube-sweep oof writes it
    found = calibrate(tmp_path / "oof.parquet")
    assert found.temperature == calibrate(SweepFolder(swept).entries()[0].path / "predictions.parquet").temperature
    command = ["predict", str(refitted), str(rows), "-o", str(tmp_path / "out.csv"), "--overwrite"]
    assert main.main(command) == 0
    plain = answers(tmp_path / "out.csv") ** (1 / found.temperature)
    words = ["--calibrate", "temperature", "--calibrate-on", str(tmp_path / "oof.parquet")]
    assert main.main([*command, *words]) == 0
    assert answers(tmp_path / "out.csv") == pytest.approx(plain / plain.sum(axis=1, keepdims=True), abs=1e-6)


def test_an_ensemble_of_the_sweep_predicts_too(swept: Path, rows: Path, tmp_path: Path) -> None:
    assert main.main(["ensemble", str(swept), "-o", str(tmp_path / "best")]) == 0
    assert main.main(["predict", str(tmp_path / "best"), str(rows), "-o", str(tmp_path / "out.csv")]) == 0
    assert answers(tmp_path / "out.csv").sum(axis=1) == pytest.approx(np.ones(4))


def test_stop_after_ends_a_course_early_and_changes_no_step_before(tmp_path: Path) -> None:
    whole, part = compose([*SHORT, "data.validation_fraction=0"]), tmp_path / "part"
    train(whole, tmp_path / "whole")
    train(compose([*SHORT, "data.validation_fraction=0", "trainer.stop_after=3"]), part)
    assert metrics(part, "train") == metrics(tmp_path / "whole", "train")[:3]
    assert metrics(part, "validation") == [] and result(part)["steps"] == 3


def test_a_run_without_validation_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    config = compose([*SHORT, "data.validation_fraction=0"])
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped", stop=StopAfter(3))
    train(config, tmp_path / "stopped")
    train(config, tmp_path / "whole")
    two, one = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("stopped", "whole"))
    assert all(two[name].equal(one[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["refit", "{sweep}", "-o", "{final}"], "exists already; choose a new or empty folder"),
        (["refit", "{sweep}", "--top", "3", "-o", "new"], "has 2 rows with a result; give fewer"),
        (["refit", "{sweep}", "--folds", "-o", "new"], "has no folds to take the number from; give it, like --folds 5"),
        (["refit", "{sweep}", "--score-test", "-o", "new"], "trainer.score_test=true needs a test part"),
        (["refit", "{sweep}", "--score-test", "--seeds", "2", "-o", "new"], "scores one model, and these are 2"),
        (["refit", "{sweep}", "--seeds", "0", "-o", "new"], "--seeds must be at least 1, got 0"),
        (["refit", "{sweep}", "-o", "none/new"], "there is no folder none"),
        (["refit", "{run}", "--top", "2", "-o", "new"], "is one run; give a sweep's folder, or --seeds 2"),
        (["refit", "{member}", "-o", "new"], "no rows validate it, so it trains on all of its rows already"),
        (["refit", "{trials}", "-o", "new"], "no rows validate its trials"),
        (["refit", "{empty}", "-o", "new"], "it has no finished trial"),
        (["refit", "{final}", "-o", "new"], "is an ensemble; it has no ranking"),
        (["export", "{final}", "new"], "was trained over random weights, which no other tool has; give --merge"),
        (["export", "{final}", "new", "--merge", "--push", "me/it"], "HF_HUB_OFFLINE is set"),
        (["oof", "{final}", "-o", "new.csv"], "is a refit, whose rows were trained on; give the sweep"),
        (["report", "{sweep}", "{final}", "-o", "new.html"], "is an ensemble; two sweeps can share a page"),
        (["predict", "{run}", "{rows}", "-o", "{final}/ensemble.json", "--overwrite"], "is a file of the ensemble in"),
        (["predict", "{final}", "{rows}", "-o", "new", "--calibrate"], "has no predictions; give --calibrate-on FILE"),
        (["predict", "{final}", "{rows}", "-o", "new", "--calibrate-on", "{rows}"], "needs --calibrate; give both"),
        (["predict", "{member}", "{rows}", "-o", "new", "--calibrate"], "has no predictions; give --calibrate-on FILE"),
        (["predict", "{trials}", "{rows}", "-o", "new"], "no finished trial has validation/log_loss"),
    ],
)
def test_a_refit_that_cannot_be_is_one_line_and_writes_nothing(
    words: list[str],
    said: str,
    swept: Path,
    refitted: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = sweeps.planned(tmp_path / "empty", [["lora.rank=2"]]).folder.path if "{empty}" in words else tmp_path
    first, member = (SweepFolder(one).entries()[0].path for one in (swept, refitted / "trials"))
    named = {"sweep": swept, "final": refitted, "trials": refitted / "trials", "run": first, "member": member}
    assert main.main([word.format(**named, empty=empty, rows=rows) for word in words]) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_rows_of_other_classes_are_refused_before_they_train(
    tmp_path: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    second = find_chosen(tmp_path / "sweep", 2)[0][1]
    file = second.trials[0].folder.predictions
    table = parquet.read_table(file)
    names = [name.replace("probability_winner_tie", "probability_tie") for name in table.column_names]
    labels = compute.replace_substring(table["label"], "winner_tie", "tie")
    parquet.write_table(table.rename_columns(names).set_column(names.index("label"), "label", labels), file)
    assert main.main(["refit", str(tmp_path / "sweep"), "--top", "2", "--trust", "-o", str(tmp_path / "new")]) == 2
    assert f"--top 2: {second.name} has other classes than" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("room", "called"), [(start_sweep, "describe"), (train_refit, "write_refit")])
def test_an_interrupt_before_several_models_train_leaves_nothing(
    tmp_path: Path, swept: Path, monkeypatch: pytest.MonkeyPatch, room: ModuleType, called: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, called, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_refit.run_refit(swept, tmp_path / "final", train_refit.Wanted(seeds=2), Terminal())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [Kind.run, Kind.ensemble])
def test_a_refit_that_was_killed_before_it_trained_begins_anew(tmp_path: Path, swept: Path, kind: Kind) -> None:
    final = tmp_path / "final"
    take_over(final, kind)
    for name in ("refit.json", ".ensemble.json.7-0a1b2c.tmp"):
        (final / name).write_text("{}")
    if kind is Kind.ensemble:
        sweeps.planned(final / "trials", [[*SHORT, "lora.rank=2"]])
    assert main.main(["refit", str(swept), "-o", str(final)]) == 0
    assert result(final)["state"] == "finished" and read_json(final / "refit.json")["rows"]
    assert not (final / "trials").exists() and not list(final.glob(".*.tmp"))


def test_an_output_that_is_no_refit_is_never_cleared(tmp_path: Path, swept: Path, refitted: Path) -> None:
    shutil.copytree(refitted, tmp_path / "began")
    (tmp_path / "began" / "ensemble.json").unlink()  # its trials have results
    take_over(tmp_path / "run", Kind.run)
    for name in ("metrics.csv", "refit.json"):
        (tmp_path / "run" / name).write_text("step")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "refit.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for name in ("began", "run", "mine"):
        assert main.main(["refit", str(swept), "-o", str(tmp_path / name)]) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_resumed_refit_ranks_nothing(tmp_path: Path, refitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(refitted / "trials", tmp_path / "trials")
    plans: list[start_sweep.PlannedSweep] = []
    monkeypatch.setattr(resume_sweep, "run_sweep", lambda plan, *_: plans.append(plan))
    resume_sweep.resume_sweep(tmp_path / "trials", [], Terminal())
    assert [plan.ranked for plan in plans] == [False]


def test_data_that_changed_since_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], swept: Path) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    for file in (tmp_path / "sweep").glob("*/config.yaml"):
        file.write_text(file.read_text().replace("rows: 40", "rows: 41"))
    assert main.main(["refit", str(tmp_path / "sweep"), "--trust", "-o", str(tmp_path / "new")]) == 2
    assert "were changed since it chose these settings" in capsys.readouterr().err


def test_folds_take_the_models_of_a_sweep_that_has_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [[*SHORT, "data.folds=2", f"data.fold={fold}"] for fold in (0, 1)]
    swept = sweeps.run(sweeps.planned(tmp_path / "folds", cells)).plan.folder
    assert main.main(["refit", str(swept.path), "--folds", "-o", str(tmp_path / "kept")]) == 0
    (member,) = EnsembleFolder(tmp_path / "kept").read()
    assert [path.name for path in member.runs] == [entry.path.name for entry in swept.entries()]
    assert not (tmp_path / "kept" / "trials").exists()
    said = capsys.readouterr().out
    assert "2 of the models are finished trials" in said and "promised" not in said
    own = [parquet.read_table(entry.folder.predictions) for entry in swept.entries()]
    joined, found = pa.concat_tables(own), parquet.read_table(tmp_path / "kept" / "predictions.parquet")
    assert sorted(found["id"].to_pylist()) == sorted(joined["id"].to_pylist())
    sure_NC = np.stack([joined[f"probability_{name}"].to_numpy() for name in sorted(NAMES)], axis=1)
    loss = log_loss(joined["label"].to_pylist(), sure_NC, labels=sorted(NAMES))
    assert f"40 rows out of 2 folds, log_loss {loss:.4f}" in said
    for words in (["oof", "{}", "-o", str(tmp_path / "oof.parquet")], ["decide", "{}"]):
        assert main.main([word.format(tmp_path / "kept") for word in words]) == 0
    assert "each stopped where its fold was best" in capsys.readouterr().out
    assert parquet.read_table(tmp_path / "oof.parquet")["id"].to_pylist() == found["id"].to_pylist()
    (tmp_path / "kept" / "predictions.parquet").unlink()  # a refit that was interrupted and resumed
    assert main.main(["oof", str(tmp_path / "kept"), "-o", str(tmp_path / "again.parquet")]) == 0
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "oof.parquet").read_bytes()


def test_a_refit_is_scored_on_the_test_part_if_asked(tmp_path: Path) -> None:
    train(compose([*TINY, "data.rows=30", "data.test_fraction=0.2", "trainer.max_steps=1"]), tmp_path / "run")
    assert main.main(["refit", str(tmp_path / "run"), "--score-test", "-o", str(tmp_path / "final")]) == 0
    found = result(tmp_path / "final")
    rows = found["rows"]
    assert rows.keys() == {"train", "test"} and sum(rows.values()) == 30  # type: ignore[attr-defined]
    assert found["test"] == pytest.approx(score_test(tmp_path / "final", CPU))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.validation_fraction=0", "trainer.patience=2"], r"trainer.patience=2 reads validations"),
        (["data.train_on_validation=true", "trainer.best_by=accuracy"], r"trainer.best_by=accuracy reads validations"),
        (["data.validation_fraction=0", "data.train_on_validation=true"], r"leaves none; give one of the two"),
        (["trainer.max_steps=4", "trainer.stop_after=5"], r"trainer.stop_after must be at most trainer.max_steps=4"),
    ],
)
def test_settings_that_need_validation_are_refused_without(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compose(overrides)


def test_a_validation_file_with_the_training_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "copy.csv"):
        Path(name).write_text("text,label\n" + "".join(f"row {k},{k % 2}\n" for k in range(8)))
    words = ["data=table", "data.path=train.csv", "data.validation_path=copy.csv", "head=sequence", *TINY]
    assert main.main(["show", *words]) == 2
    line = capsys.readouterr().err
    assert "copy.csv has the rows of data.path=" in line and "data.validation_fraction=0" in line
