"""Out-of-fold predictions: groups, their joined predictions, scores and files."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import runs
import torch
import yaml
from conftest import tiny_config
from pyarrow import parquet
from sklearn.metrics import log_loss

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import plain_config
from danube_sweep.data.parts import load_parts, load_undivided
from danube_sweep.data.records import Record
from danube_sweep.results.oof.fold_groups import find_groups
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.metrics import classification_metrics


def trial(folder: Path, *overrides: str, state: str = "finished") -> Config:
    """A run folder of a trial, ended so."""
    config = tiny_config(*overrides)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(plain_config(config), sort_keys=False))
    run.result.write_text(json.dumps({"trial": trial_hash(config), "state": state}))
    return config


def guess(record: Record, *key: int, sure: float = 1.0) -> list[float]:
    """Probabilities that follow from the row and the key alone, the right class `sure` more logits likely."""
    assert record.label is not None
    logits = np.random.default_rng([*record.id.encode(), *key]).normal(size=len(record.label))
    powers = np.exp(logits + sure * np.array(record.label))
    return list(powers / powers.sum())


def finished(folder: Path, *overrides: str, sure: float = 1.0) -> Config:
    """A finished run whose predictions of its validation rows are guessed."""
    config = trial(folder, *overrides)
    parts = load_parts(config.data)
    probabilities_NC = np.array([guess(record, config.seed, sure=sure) for record in parts.validation])
    columns: dict[str, Any] = {"id": [record.id for record in parts.validation]}
    columns["loss"] = -np.log(probabilities_NC.max(axis=1))
    columns["label"] = [parts.classes[int(np.argmax(record.label or ()))] for record in parts.validation]
    columns |= {f"probability_{name}": probabilities_NC[:, place] for place, name in enumerate(parts.classes)}
    parquet.write_table(pa.table(columns), RunFolder(folder).predictions)
    return config


def folds(sweep: Path, *overrides: str, of: int = 3, only: Sequence[int] | None = None, sure: float = 1.0) -> Config:
    """A finished run for every fold, or for `only` some."""
    name = "-".join(word.rpartition(".")[2] for word in overrides) or "plain"
    for fold in range(of) if only is None else only:
        wanted = (f"data.folds={of}", f"data.fold={fold}", *overrides)
        config = finished(sweep / f"{name}-{fold}", *wanted, sure=sure)
    return config


def oof(*arguments: object) -> int:
    return main.main(["oof", "--trust", *map(str, arguments)])  # its data lie outside, and no run made these folders


def test_joined_folds_are_scored_over_all_rows_in_the_order_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folds(tmp_path / "sweep")
    assert oof(tmp_path / "sweep") == 0
    table = parquet.read_table(tmp_path / "sweep" / "oof.parquet")
    records = load_undivided(config.data)
    assert table["id"].to_pylist() == [record.id for record in records]
    assert len(records) == 60
    expected_NC = torch.tensor([guess(record, 0) for record in records], dtype=torch.float64)
    names = [name for name in table.column_names if name.startswith("probability_")]
    assert table.column_names == ["id", "label", *names]
    assert np.allclose(np.stack([table[name].to_numpy() for name in names], axis=1), expected_NC)
    metrics = classification_metrics(expected_NC, torch.tensor([record.label for record in records]))
    said = capsys.readouterr().out
    assert all(f"{metrics[name]:.4f}" in said for name in ("log_loss", "accuracy", "macro_f1", "ece"))
    assert f"{tmp_path / 'sweep' / 'oof.parquet'}: 60 rows of " in said.replace("\n", "")


def test_the_best_group_comes_first_and_is_the_one_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folds(tmp_path / "weak", "lora.rank=2", sure=0.5)
    folds(tmp_path / "strong", "lora.rank=4", sure=2.0)
    assert oof(tmp_path / "weak", tmp_path / "strong", "-o", tmp_path / "out.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["#", "lora.rank"], ["1", "4"], ["2", "2"]]
    assert lines[-1].endswith("60 rows of lora.rank=4")
    monkeypatch.setenv("COLUMNS", "60")
    assert oof(tmp_path / "weak", tmp_path / "strong", "-o", tmp_path / "out.csv", "--overwrite") == 0
    said = capsys.readouterr().out
    assert "…" not in said and "left out, for want of width: " in said.replace("\n", " ")
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    config = tiny_config("lora.rank=4")
    expected = {record.id: guess(record, 0, sure=2.0) for record in load_undivided(config.data)}
    assert [row["id"] for row in rows] == list(expected)
    assert float(rows[5]["probability_winner_tie"]) == pytest.approx(expected[rows[5]["id"]][2])
    assert not (tmp_path / "weak" / "oof.parquet").exists()


def test_run_folders_of_several_sweeps_make_a_group_and_seeds_are_averaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds(tmp_path / "one", "seed=1", only=[0, 1])
    folds(tmp_path / "two", "seed=1", only=[2])
    folds(tmp_path / "three", "seed=2")
    folds(tmp_path / "four", "seed=3", only=[1])
    (run,) = (tmp_path / "two").iterdir()
    assert oof(tmp_path / "one", run, tmp_path / "three", tmp_path / "four") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[2].split()[-3:] == ["3", "2", "60"]
    assert "seed 3: folds 0, 2 of 3 missing" in said
    table = parquet.read_table(tmp_path / "one" / "oof.parquet")
    first = load_undivided(tiny_config().data)[0]
    mean = np.mean([guess(first, seed) for seed in (1, 2)], axis=0)
    assert [table[name][0].as_py() for name in table.column_names[2:]] == pytest.approx(list(mean))
    records = load_undivided(tiny_config().data)
    answers_NC = np.mean([[guess(one, seed) for one in records] for seed in (1, 2)], axis=0)
    wanted = log_loss([int(np.argmax(one.label or ())) for one in records], answers_NC)
    assert f" {wanted:.4f} " in said.splitlines()[2]  # of the mean answer; the mean of the losses is higher


def test_an_incomplete_group_is_named_with_what_became_of_its_folds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds(tmp_path, "lora.rank=2")
    folds(tmp_path, "lora.rank=4", only=[1])
    trial(tmp_path / "oom", "lora.rank=4", "data.folds=3", "data.fold=2", state="oom")
    trial(tmp_path / "other", "lora.rank=4")
    assert oof(tmp_path) == 0
    said = capsys.readouterr().out
    assert "lora.rank=4: folds 0, 2 of 3 (2: oom) missing" in said
    assert "1 of 6 trials have no data.folds and do not count" in said
    assert "60 rows of lora.rank=2" in said


def test_nothing_complete_is_refused_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds(tmp_path / "some", only=[0, 2])
    assert oof(tmp_path / "some") == 2
    assert "has all its folds: the group of plain-0: fold 1 of 3 missing" in capsys.readouterr().err
    trial(tmp_path / "none" / "run")
    assert oof(tmp_path / "none") == 2
    assert "no group of trials has all its folds: 1 of 1 trials have no data.folds" in capsys.readouterr().err
    assert not list(tmp_path.rglob("oof*"))
    assert oof(tmp_path / "nowhere") == 2
    assert "nowhere is no sweep" in capsys.readouterr().err


def table_file(folder: Path, rows: int = 40, **columns: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    lines = [f"k{place},text {place},{'ab'[place % 2]}" for place in reversed(range(rows))]
    (folder / "a.csv").write_text("\n".join(["key,text,label", *lines]) + "\n")
    return ["data=table", f"data.path={folder / 'a.csv'}", "data.id_column=key", "head=sequence"]


def test_groups_are_kept_and_none_is_in_two_folds(tmp_path: Path) -> None:
    folds(tmp_path)
    wanted, group_of = dict[int, list[str]](), dict[str, int]()
    for fold in range(3):
        file = RunFolder(tmp_path / f"plain-{fold}").predictions
        table = parquet.read_table(file)
        if fold < 2:  # the third was written without groups
            parquet.write_table(table.add_column(1, "group", pa.array(np.arange(len(table)) // 2)), file)
        for place, name in enumerate(table["id"].to_pylist()):
            group_of[name] = 100 * fold + (place // 2 if fold < 2 else place)
    assert oof(tmp_path) == 0
    found = parquet.read_table(tmp_path / "oof.parquet").select(["id", "group"]).to_pylist()
    for row in found:
        wanted.setdefault(row["group"], []).append(row["id"])
    expected: dict[int, list[str]] = {}
    for row in found:
        expected.setdefault(group_of[row["id"]], []).append(row["id"])
    assert sorted(wanted.values()) == sorted(expected.values()) and 20 < len(wanted) < 60


def test_the_ids_of_the_data_file_keep_their_order(tmp_path: Path) -> None:
    data = table_file(tmp_path)
    for fold in (0, 1):
        finished(tmp_path / "sweep" / str(fold), *data, "data.folds=2", f"data.fold={fold}", "data.stratified=true")
    assert oof(tmp_path / "sweep") == 0
    written = parquet.read_table(tmp_path / "sweep" / "oof.parquet")
    assert written["id"].to_pylist() == [f"k{place}" for place in reversed(range(40))]
    assert written["label"].to_pylist() == [*"ba"] * 20


def test_a_fold_trained_on_other_data_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table_file(tmp_path)
    finished(tmp_path / "sweep" / "0", *data, "data.folds=2", "data.fold=0")
    table_file(tmp_path, rows=42)
    finished(tmp_path / "sweep" / "1", *data, "data.folds=2", "data.fold=1")
    assert oof(tmp_path / "sweep") == 2
    said = capsys.readouterr().err
    assert "fold 0 of 2 (0: changed) missing" in said
    assert "0 does not count: its data or model files were changed since; put back what they were" in said


def test_ids_that_do_not_tell_rows_apart_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table_file(tmp_path)
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text().replace("k7,", "k8,"))
    for fold in (0, 1):
        finished(tmp_path / "sweep" / str(fold), *data, "data.folds=2", f"data.fold={fold}")
    assert oof(tmp_path / "sweep") == 2
    assert "the id 'k8' is there 2 times; give ids that tell the rows apart" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["gone", "cut", "short", "other"])
def test_predictions_that_are_damaged_or_of_other_rows_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folds(tmp_path)
    file = RunFolder(tmp_path / "plain-1").predictions
    table = parquet.read_table(file)
    match damage:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(file.read_bytes()[:-7])
        case "short":
            parquet.write_table(table.slice(1), file)
        case "other":
            parquet.write_table(table.set_column(0, "id", pa.array(["x:1", *table["id"].to_pylist()[1:]])), file)
    assert oof(tmp_path) == 2
    assert "again" in capsys.readouterr().err


def test_soft_labels_are_scored_as_they_stand_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"text {place},{place % 5 / 5},{1 - place % 5 / 5}" for place in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["text,no,yes", *lines]) + "\n")
    soft = ["data=table", f"data.path={tmp_path / 'a.csv'}", "data.soft_label_columns=[no,yes]", "head=sequence"]
    for fold in (0, 1):
        config = finished(tmp_path / "sweep" / str(fold), *soft, "data.folds=2", f"data.fold={fold}")
    assert oof(tmp_path / "sweep") == 0
    records = load_undivided(config.data)
    losses = [-np.dot(record.label or (), np.log(guess(record, 0))) for record in records]
    assert f"{np.mean(losses):.4f}" in capsys.readouterr().out


def test_rows_that_max_rows_cut_off_are_missed_by_nobody(tmp_path: Path) -> None:
    folds(tmp_path, "data.max_rows=4")
    assert oof(tmp_path) == 0
    ids = parquet.read_table(tmp_path / "oof.parquet")["id"].to_pylist()
    assert len(ids) == 12
    assert ids == [record.id for record in load_undivided(tiny_config().data) if record.id in ids]


@pytest.mark.parametrize(
    ("target", "said"),
    [("out.txt", "must end in .parquet or .csv"), ("no/out.csv", "there is no folder")],
)
def test_a_place_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, said: str
) -> None:
    assert oof(tmp_path / "nowhere", "-o", tmp_path / target) == 2
    assert said in capsys.readouterr().err


def test_real_runs_of_a_classifier_and_of_language_modelling_join(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [json.dumps({"text": f"line {place} " + "and so on " * (place % 9)}) for place in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(texts) + "\n")
    kinds = {"generated": ["data.rows=24"], "text": ["data=text", f"data.path=[{tmp_path / 'a.jsonl'}]", "head=lm"]}
    for kind, overrides in kinds.items():
        results = []
        for fold in (0, 1):
            small = ["trainer.max_steps=1", "data.max_length=24" if kind == "text" else "data.max_length=96"]
            config = tiny_config(*overrides, *small, "data.folds=2", f"data.fold={fold}")
            results.append(runs.train(config, tmp_path / kind / str(fold)))
        assert oof(tmp_path / kind / "0", tmp_path / kind / "1", "-o", tmp_path / f"{kind}.parquet") == 0
        losses = [result["validation"]["log_loss"] for result in results]
        said = float(capsys.readouterr().out.splitlines()[2].split()[1])
        assert min(losses) - 1e-4 <= said <= max(losses) + 1e-4
    table = parquet.read_table(tmp_path / "text.parquet")
    assert table.column_names == ["id", "group", "loss", "weight"]
    keys = [tuple(map(int, name.split(":"))) for name in table["id"].to_pylist()]
    assert keys == sorted(keys)
    assert {text for text, _ in keys} == set(range(1, 41))
    assert max(piece for _, piece in keys) >= 1
    assert parquet.read_table(tmp_path / "generated.parquet").num_rows == 24


def test_groups_of_another_number_of_folds_stay_apart(tmp_path: Path) -> None:
    folds(tmp_path, of=2)
    folds(tmp_path / "more", of=3, only=[0])
    groups, notes = find_groups([tmp_path, tmp_path / "more"])
    assert [(group.folds, len(group.seeds), group.lacks()) for group in groups] == [
        (2, 1, ""),
        (3, 0, "folds 1, 2 of 3"),
    ]
    assert notes == []


def test_nothing_is_written_onto_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds(tmp_path / "folds")
    file = sorted((tmp_path / "folds").rglob("predictions.parquet"))[1]
    before = file.read_bytes()
    assert oof(tmp_path / "folds", "-o", file, "--overwrite") == 2
    assert "which is read; choose another place" in capsys.readouterr().err and file.read_bytes() == before


def test_an_ensemble_of_models_with_folds_is_a_row_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        folds(tmp_path / f"seed {seed}", f"seed={seed}")
    config = folds(tmp_path / "weak", "lora.rank=4", sure=-1.0)
    best = tmp_path / "best"
    seeds = [str(tmp_path / f"seed {seed}") for seed in (1, 2)]
    assert main.main(["ensemble", *seeds, "-o", str(best), "--method", "mean"]) == 0
    capsys.readouterr()
    assert oof(best, tmp_path / "weak", "-o", tmp_path / "out.parquet") == 0
    said = capsys.readouterr().out.replace("\n", " ")
    table = parquet.read_table(tmp_path / "out.parquet")
    records = load_undivided(config.data)
    assert table["id"].to_pylist() == [record.id for record in records]
    wanted = np.array([np.mean([guess(one, seed) for seed in (1, 2)], axis=0) for one in records])
    columns = [name for name in table.column_names if name.startswith("probability_")]
    assert np.allclose(np.stack([table[name].to_numpy() for name in columns], axis=1), wanted)
    labels = [int(np.argmax(record.label or ())) for record in records]
    assert f"{log_loss(labels, wanted):.4f}" in said and "60 rows of the ensemble" in said
    assert "the weights were chosen on these rows" in said and "its loss on unseen rows is" in said


def test_an_ensemble_without_folds_or_with_a_changed_member_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        finished(tmp_path / "plain" / f"{seed}", f"seed={seed}")
        folds(tmp_path / "dealt", f"seed={seed}")
    for name in ("plain", "dealt"):
        assert main.main(["ensemble", str(tmp_path / name), "-o", str(tmp_path / f"best-{name}")]) == 0
    capsys.readouterr()
    (tmp_path / "dealt" / "seed=1-0" / "config.yaml").write_text(
        (tmp_path / "dealt" / "seed=1-0" / "config.yaml").read_text().replace("seed: 1", "seed: 3")
    )
    for name, line in (
        ("plain", "its members have no data.folds, so no row is out of fold"),
        ("dealt", "its config, data or model files were changed since"),
    ):
        assert oof(tmp_path / f"best-{name}", "-o", tmp_path / "out.csv") == 2
        error = capsys.readouterr().err
        assert line in error and len([one for one in error.splitlines() if "error" in one]) == 1
    assert not (tmp_path / "out.csv").exists()
