"""Soft labels of a finished run: the rows of a file with the run's probabilities, as extra rows are read."""

import csv
import json
from pathlib import Path

import pytest
from conftest import tiny_config
from runs import CPU, train

from danube_sweep.cli import main
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.data.parts import load_parts
from danube_sweep.inference.predict import load_run, predict_file
from danube_sweep.storage.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("cache_of_the_file")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over files in the competition's format, with its training file beside it."""
    place = tmp_path_factory.mktemp("teacher")
    write_csv(generate(40, seed=1, noise=0.0), place / "train.csv")
    options = ["data=arena", f"data.path={place / 'train.csv'}", "precision=fp32", "lora=none"]
    train(tiny_config(*options, "trainer.max_steps=2"), place / "run")
    return place


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    file = tmp_path / "new.jsonl"
    texts = ['=1+1, "quoted"', "line\nbreak", "plain", "[not a list"]
    rows = [
        {"id": f"n{k}", "prompt": [f"new {k}"], "response_a": [text], "response_b": ["b", None]}
        for k, text in enumerate(texts)
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_labels_are_the_predictions_and_come_back_as_extra_rows(
    teacher: Path, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = tmp_path / "soft.csv"
    assert main.main(["label", str(teacher / "run"), str(unlabelled), "-o", str(soft)]) == 0
    assert "4 rows with soft labels; train on them with data.extra=[" in capsys.readouterr().out
    predict_file(load_run(teacher / "run", CPU), unlabelled, tmp_path / "out.csv")
    names = ["winner_model_a", "winner_model_b", "winner_tie"]
    written, predicted = read(soft), read(tmp_path / "out.csv")
    assert [row["id"] for row in written] == ["n0", "n1", "n2", "n3"]
    assert [[row[name] for name in names] for row in written] == [[row[name] for name in names] for row in predicted]
    config = tiny_config("data=arena", f"data.path={teacher / 'train.csv'}", f"data.extra=[{soft}]")
    extra = load_parts(config.data).extra
    assert [record.texts for record in extra] == [
        (f"new {k}", text, "b\n\n") for k, text in enumerate(['=1+1, "quoted"', "line\nbreak", "plain", "[not a list"])
    ]
    for record, row in zip(extra, predicted, strict=True):
        assert record.label == pytest.approx([float(row[name]) for name in names], abs=1e-12)


def test_a_student_trains_on_them_and_its_result_counts_them(teacher: Path, unlabelled: Path, tmp_path: Path) -> None:
    soft = tmp_path / "soft.csv"
    assert main.main(["label", str(teacher / "run"), str(unlabelled), "-o", str(soft)]) == 0
    options = ["data=arena", f"data.path={teacher / 'train.csv'}", f"data.extra=[{soft}]", "data.extra_weight=0.5"]
    train(tiny_config(*options, "precision=fp32", "lora=none", "trainer.max_steps=2"), tmp_path / "student")
    rows = (RunFolder(tmp_path / "student").read_result() or {})["rows"]
    before = (RunFolder(teacher / "run").read_result() or {})["rows"]
    assert rows == {**before, "train": before["train"] + 4}


def test_labels_that_are_there_already_and_bad_requests_are_told(
    teacher: Path, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(teacher / "run"), str(tmp_path / "soft.csv")
    assert main.main(["label", run, str(teacher / "train.csv"), "-o", out]) == 0
    told = capsys.readouterr()
    assert "it has labels already ('winner_model_a'" in " ".join((told.out + told.err).split())
    assert main.main(["label", run, str(unlabelled), "-o", out]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main.main(["label", run, str(unlabelled), "-o", str(tmp_path / "soft.parquet")]) == 2
    assert "give a name that ends in .csv" in capsys.readouterr().err
    own = ["data=arena", f"data.path={teacher / 'train.csv'}", f"data.extra=[{out}]", f"hydra.run.dir={tmp_path / 'x'}"]
    assert main.main(["show", *own[:3]]) == 2
    assert "have a prompt that also stands in the validation part" in capsys.readouterr().err


def test_a_run_that_labels_words_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"tokens": ["in", "Paris", str(k)], "labels": ["O", "B-CITY", "O"]} for k in range(12)]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    options = ["data=tokens", f"data.path={tmp_path / 'words.jsonl'}", "head=token", "precision=fp32", "lora=none"]
    train(tiny_config(*options, "trainer.max_steps=1"), tmp_path / "run")
    words = ["label", str(tmp_path / "run"), str(tmp_path / "words.jsonl"), "-o", str(tmp_path / "soft.csv")]
    assert main.main(words) == 2
    assert "labels words, and data.extra takes labels of rows" in capsys.readouterr().err
    assert not (tmp_path / "soft.csv").exists()
