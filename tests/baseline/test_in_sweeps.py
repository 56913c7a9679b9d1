"""The baselines of a sweep: one of each kind for every split, on the trials' own validation rows."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from sklearn.metrics import accuracy_score, log_loss
from sweeps import Ran, planned, run

from danube_sweep.config.schema import Baseline
from danube_sweep.report.collect import gather
from danube_sweep.report.page import page
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.rows import winner
from danube_sweep.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two folds, each trained for a step."""
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
        cells = [["data.fold=0"], ["data.fold=1"]]
        plan = planned(place / "sweep", cells, "data.folds=2", "trainer.max_steps=1", "trainer.validate_every=1")
        return run(plan, baseline=Baseline.tfidf)


def folders(ran: Ran) -> list[RunFolder]:
    return [RunFolder(place) for place in sorted(ran.plan.folder.baselines.iterdir())]


def test_every_split_has_both_baselines(swept: Ran) -> None:
    found = [json.loads(folder.result.read_text()) for folder in folders(swept)]
    assert sorted((one["baseline"], one["fold"]) for one in found) == [
        ("lengths", 0), ("lengths", 1), ("tfidf", 0), ("tfidf", 1)
    ]  # fmt: skip
    assert swept.said.count("baseline tfidf: log_loss") == 2


def test_they_answer_the_rows_that_validate_the_trials(swept: Ran) -> None:
    for folder in folders(swept):
        fold = json.loads(folder.result.read_text())["fold"]
        mine = parquet.read_table(folder.predictions)
        trial = parquet.read_table(swept[fold + 1].folder.predictions)
        assert {name: mine[name].to_pylist() for name in ("id", "group", "label")} == {
            name: trial[name].to_pylist() for name in ("id", "group", "label")
        }


def test_their_metrics_are_those_sklearn_computes_from_the_predictions(swept: Ran) -> None:
    for folder in folders(swept):
        table = parquet.read_table(folder.predictions).to_pydict()
        names = [name for name in table if name.startswith("probability_")]
        rows = list(zip(*(table[name] for name in names), strict=True))
        classes = [name.removeprefix("probability_") for name in names]
        reported = json.loads(folder.result.read_text())["validation"]
        assert reported["log_loss"] == pytest.approx(log_loss(table["label"], rows, labels=classes), abs=1e-6)
        likeliest = [classes[row.index(max(row))] for row in rows]
        assert reported["accuracy"] == pytest.approx(accuracy_score(table["label"], likeliest))


def test_a_second_time_nothing_is_trained(swept: Ran) -> None:
    before = [folder.result.stat().st_mtime_ns for folder in folders(swept)]
    again = run(swept.plan, baseline=Baseline.tfidf)
    assert "baseline tfidf: log_loss" not in again.said
    assert [folder.result.stat().st_mtime_ns for folder in folders(swept)] == before


def test_a_sweep_may_do_without(tmp_path: Path) -> None:
    quiet = run(planned(tmp_path / "none", [["seed=0"]]), baseline=Baseline.none)
    assert not quiet.plan.folder.baselines.exists()


def test_the_ranking_shows_them_beside_the_trials(swept: Ran) -> None:
    ranking = rank_sweep(swept.plan.folder.path)
    assert {row.baseline for row in ranking.baselines} == {"tfidf", "lengths"}
    assert len(ranking.shown) == len(ranking.rows) + 2 and winner(ranking) in ranking.rows
    best = winner(ranking)
    assert best is not None and best.mean is not None
    for row in ranking.baselines:
        results = [json.loads(folder.result.read_text()) for folder in folders(swept)]
        losses = [one["validation"]["log_loss"] for one in results if one["baseline"] == row.baseline]
        assert row.mean == pytest.approx(sum(losses) / 2) and row.rank is None
        assert row.difference == pytest.approx(row.mean - best.mean) and row.interval is not None
    text = (swept.plan.folder.path / "ranking.csv").read_text()
    assert "baseline tfidf" in text and "baseline lengths" in text
    assert "baseline tfidf" in swept.said
    assert "baseline tfidf" in page(gather(swept.plan.folder.path))
