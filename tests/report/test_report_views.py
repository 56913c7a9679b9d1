"""The views of the page: best so far, validation rows, classes, the split and versions in words, two sweeps."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from conftest import tiny_config
from drawn import Sketch, distinct, grid, write_sweep
from pages import Node, parsed, ranking_of, section
from pyarrow import parquet
from sklearn.metrics import precision_recall_fscore_support

from danube_sweep.cli import main
from danube_sweep.config.stored import plain_config
from danube_sweep.data.parts import load_parts
from danube_sweep.report import validation_rows
from danube_sweep.report.collect import gather
from danube_sweep.report.comparability import Fact, compared
from danube_sweep.report.learning_curves import read_curve
from danube_sweep.report.page import page
from danube_sweep.results.trial_results import read_trials
from danube_sweep.storage.run_folder import RunFolder


def drawn(path: Path, second: Path | None = None) -> Node:
    return parsed(page(gather(path, second=second)))


def facts(path: Path) -> dict[str, str]:
    trials, _ = read_trials(path)
    return {fact.name: fact.value for fact in compared(trials, [], [])}


def test_only_trials_of_one_fold_must_have_read_the_same(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, grid(4))
    trials = read_trials(sweep)[0]
    for number, trial in enumerate(trials):
        trial.config["data.fold"], trial.config["data.folds"] = number % 2, 2
        trial.result["rows"] = {"train": 30 + number % 2}

    def examples() -> Fact:
        (found,) = [fact for fact in compared(trials, [], []) if fact.name == "examples"]
        return found

    assert "train 30 (2 trials); or train 31 (2 trials)" in examples().value and not examples().differs
    trials[0].result["rows"] = {"train": 29}
    assert examples().differs


def test_the_best_so_far_only_improves_and_ends_at_the_best(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", distinct(30))
    pictures = drawn(sweep).one("section", id="pictures")
    figures = {one.one("b").text: one for one in pictures.all("figure")}
    for title in ("Best so far, over trials", "Best so far, over time"):
        (line,) = figures[title].all("polyline", class_="front")
        heights = [float(pair.partition(",")[2]) for pair in (line.attributes["points"] or "").split()]
        assert heights == sorted(heights)  # further down the picture is a lower loss
        (star,) = figures[title].all("path", class_="mark best")
        assert heights[-1] == pytest.approx(
            float(re.findall(r"M\S+ ([\d.]+)", star.attributes["d"] or "")[0]) + 5.7, abs=1
        )


def test_the_learning_rate_and_sampled_memory_are_curves(tmp_path: Path) -> None:
    rows = [
        "step,part,epoch,loss,lr,seconds,memory_bytes",
        "1,train,0.1,2.0,0.001,,",
        "2,train,0.2,1.0,0.002,4.0,1073741824",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join([*rows, ""]))
    curve = read_curve(tmp_path / "metrics.csv", "log_loss")
    assert curve is not None
    assert [part.tolist() for part in curve.rates] == [[1, 2], [0.001, 0.002]]
    assert [part.tolist() for part in curve.memory] == [[4.0], [2**30]]
    sweep = write_sweep(tmp_path / "sweep", grid(2))
    assert "GPU memory over time" not in section(drawn(sweep), "pictures")
    (file, *_) = sorted(sweep.glob("*/metrics.csv"))
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{header},memory_bytes", *(f"{line},{2**30}" for line in lines), ""]))
    assert "GPU memory over time" in section(drawn(sweep), "pictures")
    assert "learning rate by step" in section(drawn(sweep), "pictures")


# -------------------------------------------------------------------------------------------------- validation


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    evil = ["<b>x</script>", "b", "c"]
    sketches = [Sketch([f"lora.rank={rank}"], quality, classes=evil) for rank, quality in ((4, 0.3), (8, 0.5))]
    return write_sweep(tmp_path_factory.mktemp("classified") / "sweep", sketches)


def test_each_class_has_the_figures_of_scikit_learn(classified: Path) -> None:
    (file,) = classified.glob("002_*/predictions.parquet")
    columns = parquet.read_table(file).to_pydict()
    classes = [name.removeprefix("probability_") for name in columns if name.startswith("probability_")]
    said = np.array([columns[f"probability_{name}"] for name in classes]).argmax(axis=0)
    wanted = precision_recall_fscore_support(columns["label"], [classes[one] for one in said], labels=classes)
    (table,) = [one for one in drawn(classified).all("figure") if one.one("b").text == "Each class"]
    shown = {row.one("bdi").text: [cell.text for cell in row.all("td")] for row in list(table.all("tr"))[1:]}
    for place, name in enumerate(classes):
        *shares, rows = (part[place] for part in wanted)
        assert shown[name] == [*(f"{share:.3f}" for share in shares), str(rows)]


def test_the_worst_and_the_most_disputed_rows_are_those_of_the_file(classified: Path) -> None:
    (file,) = classified.glob("002_*/predictions.parquet")
    columns = parquet.read_table(file).to_pydict()
    chances = np.sort(np.array([found for name, found in columns.items() if name.startswith("probability_")]), axis=0)
    worst = [columns["id"][place] for place in np.argsort(-np.array(columns["loss"]), kind="stable")[:12]]
    disputed = [columns["id"][place] for place in np.argsort(chances[-1] - chances[-2], kind="stable")[:12]]
    rows = gather(classified).validation
    assert rows is not None
    assert [rows.ids[place] for place in rows.worst] == worst
    assert [rows.ids[place] for place in rows.disputed] == disputed
    assert rows.texts is None and rows.no_texts == "the run was not made here, so its data is not read"
    told = section(drawn(classified), "validation")
    assert "No texts, as the run was not made here" in told and worst[0] in told


def test_data_in_the_page_cannot_end_its_script(classified: Path) -> None:
    html = page(gather(classified))
    found = parsed(html)
    blocks = [one for one in found.all("script") if one.attributes.get("type") == "application/json"]
    assert [one.attributes["id"] for one in blocks] == ["explore-data", "sides-data"]
    rows = len(list(found.all("button", class_="opener")))  # each has its opened row as text
    assert len(list(found.all("script"))) == 3 and html.count("</script>") == 3 + rows
    assert "<b>x</script>" in json.loads(blocks[1].text)["labels"]


def test_rows_are_shown_with_their_texts_while_the_data_is_there(
    real_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(real_sweep.parent / "cache"))
    rows = gather(real_sweep).validation
    assert rows is not None and rows.texts is not None, rows and rows.no_texts
    assert len(rows.texts) == len(rows.ids) and all("\N{PILCROW SIGN}" in text for text in rows.texts)
    assert set(rows.labels) <= {"winner_model_a", "winner_model_b", "winner_tie"}
    assert rows.texts[rows.worst[0]][:40] in section(drawn(real_sweep), "validation")


@pytest.mark.parametrize(
    ("head", "labels"), [("regression", ["1.5", "2", "3"]), ("multilabel", ["['a','b']", "['b','c']", "['a']"])]
)
def test_numbers_and_several_classes_a_row_have_texts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, labels: list[str]
) -> None:
    monkeypatch.setattr(validation_rows, "made_here", lambda _folder: True)
    lines = [f'{n},text {n},"{labels[n % 3]}"' for n in range(30)]
    (tmp_path / "train.csv").write_text("\n".join(["id,text,label", *lines, ""]))
    (tmp_path / "extra.csv").write_text("\n".join(["id,text,label", *lines[:3], ""]).replace(",text", ",more"))
    files = [f"data.path={tmp_path / 'train.csv'}", f"data.extra=[{tmp_path / 'extra.csv'}]"]
    config = tiny_config("data=table", f"head={head}", "data.id_column=id", *files)
    (tmp_path / "extra.csv").unlink()  # not needed for the validation rows
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain_config(config)))
    ids = [record.id for record in load_parts(replace(config.data, extra=[]), config.head.target).validation]
    trial = SimpleNamespace(folder=RunFolder(tmp_path))
    found = validation_rows._Read("r1", cast(Any, trial), ids, np.zeros(len(ids)), None, None)
    truths = ["a, b" if head == "multilabel" else "2"] * len(ids)
    texts, why = validation_rows._texts(found, truths, range(len(ids)))
    assert (texts, why) == ([f"text {name}" for name in ids], "")
    words = replace(found, ids=[f"{name}:3" for name in ids])  # of a head for words, or a piece of a text
    assert validation_rows._texts(words, truths, range(len(ids))) == (texts, "")


# --------------------------------------------------------------------------------------------- the right words


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (
            {"data.validation_path": "/d/valid.csv", "data.validation_fraction": 0.2},
            "validation rows from /d/valid.csv",
        ),
        ({"data.validation_fraction": 0.25, "data.split_seed": 3}, "validation_fraction 0.25, split_seed 3"),
        ({"data.folds": 5, "data.fold": 0, "data.validation_fraction": 0.2}, "5 folds, split_seed 0"),
        (
            {"data.validation_path": "v.csv", "data.test_path": "t.csv"},
            "validation rows from v.csv, test rows from t.csv",
        ),
        (
            {"data.validation_fraction": 0.25, "data.train_on_validation": True},
            "validation_fraction 0.25, validation rows trained on",
        ),
    ],
)
def test_the_split_is_the_one_that_was_used(tmp_path: Path, config: dict[str, object], wanted: str) -> None:
    said = facts(write_sweep(tmp_path / "sweep", [Sketch(["lora.rank=8"], 0.5, config=config)]))["split"]
    assert said.startswith(wanted)
    assert ("validation_fraction" in said) == ("validation_fraction" in wanted)


def test_what_was_read_and_versions_that_differ_are_told(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(2))
    part = {"rows": 80, "median_tokens": 12, "longest_tokens": 90, "cut_rows": 4, "empty_rows": 0}
    data = {
        "parts": {"training": part, "validation": {**part, "rows": 20, "cut_rows": 1}}, "max_length": 64,
        "unit": "text", "groups": 99, "repeated": 0, "repeated_templates": 0, "leaks": {}, "cure": {},
        "classes": {"a": 60, "b": 40},
    }  # fmt: skip
    for number, file in enumerate(sorted(sweep.glob("*/environment.json"))):
        stored = json.loads(file.read_text())
        stored["versions"]["torch"] = f"2.{number}"
        file.write_text(json.dumps({**stored, "data": data}))
    told = facts(sweep)
    assert told["what was read"] == "80 training and 20 validation rows, 2 classes, 5 cut at data.max_length=64"
    assert told["versions"] == "python 3.11.9, danube_sweep 0.1.0"
    assert told["version of torch"] == "2.0 (1 trials); or 2.1 (1 trials)"


# -------------------------------------------------------------------------------------------------- two sweeps


def test_two_sweeps_are_ranked_on_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_sweep(tmp_path / "monday", [Sketch([f"lora.rank={rank}"], rank / 20) for rank in (4, 8)])
    second = write_sweep(tmp_path / "tuesday", [Sketch([f"lora.rank={rank}"], 0.1 + rank / 20) for rank in (4, 8)])
    file = tmp_path / "both.html"
    assert main.main(["report", str(first), str(second), "-o", str(file)]) == 0
    assert re.search(r"both\.html: 4 trials", capsys.readouterr().out)
    found = parsed(file.read_text(encoding="utf-8"))
    rows = [(row["from_sweep"], row["rank"]) for row in ranking_of(found)]
    assert rows == [("tuesday", "8"), ("monday", "8"), ("tuesday", "4"), ("monday", "4")]
    alone = {row.values["lora.rank"]: row.mean for row in gather(first).ranking.rows}
    assert [one.row.mean for one in gather(first, second=second).shown if one.row.values["from_sweep"] == "monday"] == [
        alone[8], alone[4]
    ]  # fmt: skip
    assert found.one("h1").text.count("monday") == found.one("h1").text.count("tuesday") == 1
    lanes = {bar.host: bar.start_s for bar in gather(first, second=second).timeline.bars}
    assert lanes == {"monday here": 0.0, "tuesday here": 0.0}  # each since its own beginning
    assert "from_sweep" not in found.one("code", id="command").text
    assert str(second) in found.one("code", id="then-0").text
    links = [link.attributes["href"] or "" for link in found.all("a", href="001_")]
    assert len(links) == 2 and all((tmp_path / link).is_dir() for link in links)


def test_a_sweep_given_twice_is_refused_and_another_metric_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_sweep(tmp_path / name, grid(4)) for name in ("a", "b"))
    assert main.main(["report", str(first), str(first), "-o", str(tmp_path / "page.html")]) == 2
    assert "is given twice; give two sweeps, or one" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    described = json.loads((second / "sweep.json").read_text())
    described["settings"]["sweep"]["metric"] = "validation/accuracy"
    (second / "sweep.json").write_text(json.dumps(described))
    assert "was to rank by validation/accuracy (maximize); here both are ranked by validation/log_loss" in section(
        drawn(first, second), "ranking"
    )
