"""Ensembles from predictions on disk: the selection against a search by hand, and honest figures on unseen rows."""

import json
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_config
from pyarrow import parquet
from scipy import optimize, special
from sklearn.metrics import log_loss

from danube_sweep.cli import main
from danube_sweep.config.schema import Config
from danube_sweep.errors import CheckpointError
from danube_sweep.results.ensemble.ensemble_command import _verdict
from danube_sweep.results.ensemble.held_out import Estimate, held_out
from danube_sweep.results.ensemble.members import TEMPERATURES, find_members, parts_at, tempered
from danube_sweep.results.ensemble.selection import Pool, best_single, greedy
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.files import read_json
from danube_sweep.storage.sweep_folder import SweepFolder

ROWS, CLASSES = 240, ["a", "b", "c"]
IDS = [f"row {number}" for number in range(ROWS)]
LABELS = np.random.default_rng(7).integers(0, 3, ROWS)


def sure(seed: int, skill: float, sharp: float = 1.0, labels: Any = LABELS) -> Any:
    """Probabilities of a model: its own noise, the label that much likelier, logits stretched by `sharp`."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), 3))
    logits[np.arange(len(labels)), labels] += skill
    return special.softmax(sharp * logits, axis=1)


def columns(answers_NC: Any, labels: Any = LABELS, ids: Sequence[str] = IDS) -> dict[str, Any]:
    found = {"id": list(ids), "loss": -np.log(answers_NC[np.arange(len(labels)), labels])}
    found["label"] = [CLASSES[place] for place in labels]
    return found | {f"probability_{name}": answers_NC[:, place] for place, name in enumerate(CLASSES)}


def finished(folder: SweepFolder, overrides: list[str], table: dict[str, Any], state: str = "finished") -> Path:
    config: Config = tiny_config(*overrides)
    ((entry, _),) = folder.add([(config, overrides, None)])
    parquet.write_table(pa.table(table), entry.folder.predictions)
    loss = float(np.mean(table["loss"]))
    entry.folder.result.write_text(json.dumps({"trial": entry.hash, "state": state, "validation": {"log_loss": loss}}))
    return entry.path


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    return folder


def three(sweep: SweepFolder) -> SweepFolder:
    """Three models with noise of their own, the second of them twice as sure of itself as it should be."""
    for row, (skill, sharp) in enumerate([(1.0, 1.0), (0.9, 2.0), (0.8, 1.0)]):
        finished(sweep, [f"lora.rank={2 + row}"], columns(sure(row, skill, sharp)))
    return sweep


def pool_of(sweep: SweepFolder) -> Pool:
    members, _ = find_members([sweep.path])
    return Pool([parts_at(one.answers) for one in members], members[0].answers.places_N, False)


def test_greedy_finds_the_best_blend_of_few_picks(sweep: SweepFolder) -> None:
    pool, everything = pool_of(three(sweep)), np.arange(ROWS)
    found = greedy(pool, everything)
    chosen = [parts[place, :, 0] for parts, place in zip(pool.parts_TNA, found.temperatures_M, strict=True)]
    best = min(
        -np.log(np.mean([chosen[one] for one in picks], axis=0)).mean()
        for count in range(1, 8)
        for picks in combinations_with_replacement(range(3), count)
    )
    assert found.losses(pool, everything).mean() == pytest.approx(best, abs=1e-3)
    assert found.weights_M.sum() == pytest.approx(1) and (found.weights_M > 0).all()


def test_a_temperature_is_the_one_of_the_grid_next_to_the_optimum(sweep: SweepFolder) -> None:
    pool = pool_of(three(sweep))
    logits = np.log(sure(1, 0.9, 2.0))
    wanted = optimize.minimize_scalar(
        lambda log_t: log_loss(LABELS, special.softmax(logits / np.exp(log_t), axis=1)), bounds=(-1, 1.3)
    )
    found = TEMPERATURES[greedy(pool, np.arange(ROWS)).temperatures_M[1]]
    assert abs(np.log(found) - wanted.x) <= np.log(TEMPERATURES[1] / TEMPERATURES[0])
    assert tempered(sure(1, 0.9, 2.0), 2.0, shares=True) == pytest.approx(special.softmax(logits / 2, axis=1))
    several = special.expit(np.array([[2.0, -1.0]]))
    assert tempered(several, 2.0, shares=False) == pytest.approx(special.expit(np.array([[1.0, -0.5]])))


def test_on_rows_that_chose_nothing_equal_models_gain_nothing_by_selection() -> None:
    """Thirty models that know nothing: the best of them looks good on its own rows alone."""
    guesses = [sure(row, 0.0) for row in range(30)]
    pool = Pool([one[:, LABELS][np.arange(ROWS), np.arange(ROWS)][None, :, None] for one in guesses],
                np.arange(ROWS), False)  # fmt: skip
    pool = Pool([np.repeat(parts, len(TEMPERATURES), axis=0) for parts in pool.parts_TNA], pool.groups_N, False)
    own = best_single(pool, np.arange(ROWS)).losses(pool, np.arange(ROWS)).mean()
    honest = held_out(pool, {"best single": best_single}, "best single")["best single"]
    typical = np.mean([-np.log(one[np.arange(ROWS), LABELS]).mean() for one in guesses])
    assert own < typical - 0.05
    assert honest.loss == pytest.approx(typical, abs=0.05)


def test_the_difference_to_the_best_single_is_that_of_unseen_rows(sweep: SweepFolder) -> None:
    pool = pool_of(three(sweep))
    found = held_out(pool, {"best single": best_single, "greedy": greedy}, "best single")
    assert found["best single"].difference == 0 and found["best single"].half == 0
    assert found["greedy"].difference == pytest.approx(found["greedy"].loss - found["best single"].loss)
    assert found["greedy"].better and found["greedy"].half > 0
    # A model that is right by itself is not improved by two that guess.
    alone = Pool([parts_at_one(sure(0, 6.0)), parts_at_one(sure(1, 0.0)), parts_at_one(sure(2, 0.0))],
                 np.arange(ROWS), False)  # fmt: skip
    assert not held_out(alone, {"best single": best_single, "greedy": greedy}, "best single")["greedy"].better


def parts_at_one(answers_NC: Any) -> Any:
    return np.repeat(answers_NC[np.arange(ROWS), LABELS][None, :, None], len(TEMPERATURES), axis=0)


def test_members_are_the_finished_ones_with_the_same_rows_labels_and_classes(sweep: SweepFolder) -> None:
    three(sweep)
    finished(sweep, ["lora.rank=16"], columns(sure(3, 1.0)), state="pruned")
    finished(sweep, ["lora.rank=17"], columns(sure(3, 1.0)[:-1], LABELS[:-1], IDS[:-1]))
    finished(sweep, ["lora.rank=18"], columns(sure(3, 1.0), (LABELS + 1) % 3))
    finished(sweep, ["lora.rank=19"], {"id": IDS, "loss": np.ones(ROWS), "weight": np.ones(ROWS)})
    order = np.random.default_rng(0).permutation(ROWS)
    shuffled = {name: np.array(values)[order] for name, values in columns(sure(4, 1.0)).items()}
    finished(sweep, ["lora.rank=20"], shuffled)
    members, notes = find_members([sweep.path])
    assert [one.trials[0].config["lora.rank"] for one in members] == [2, 3, 4, 20]
    assert members[3].answers.probabilities_NC == pytest.approx(sure(4, 1.0))
    assert notes == [
        "1 of 8 trials are not finished and do not count",
        "1 trial left out: language modelling gives no answers to blend",
        "2 trials left out: other validation rows, labels or classes than the others",
    ]


def test_folds_of_a_model_are_one_member(sweep: SweepFolder) -> None:
    halves = np.arange(ROWS) % 2 == 0
    for rank in (2, 4):
        for fold, rows in enumerate((halves, ~halves)):
            answers = sure(rank, 1.0)[rows]
            table = columns(answers, LABELS[rows], [one for one, there in zip(IDS, rows, strict=True) if there])
            finished(sweep, [f"lora.rank={rank}", "data.folds=2", f"data.fold={fold}"], table | {
                "group": np.arange(rows.sum())})  # fmt: skip
    finished(sweep, ["lora.rank=8", "data.folds=2", "data.fold=0"], columns(sure(8, 1.0)))
    members, notes = find_members([sweep.path])
    assert [len(one.runs) for one in members] == [2, 2]
    assert len(np.unique(members[0].answers.places_N)) == ROWS
    assert notes == ["1 trial left out: not all of their 2 folds are finished"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main.main(["ensemble", *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_command_shows_scores_and_keeps_members_and_their_answers(
    sweep: SweepFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(sweep)
    code, shown = said(capsys, str(sweep.path), "-o", str(tmp_path / "best"), "--method", "greedy")
    assert code == 0 and "greedy is better than the best single model on unseen rows" in shown
    folder = EnsembleFolder(tmp_path / "best")
    members = folder.read()
    assert sum(one.weight for one in members) == pytest.approx(1)
    assert {one.runs[0] for one in members} == {entry.path for entry in sweep.entries()}
    by_name = {one.name: one for one in members}
    wanted = sum(
        by_name[f"lora.rank={2 + row}, seed=0"].weight
        * tempered(sure(row, skill, sharp), by_name[f"lora.rank={2 + row}, seed=0"].temperature, shares=True)
        for row, (skill, sharp) in enumerate([(1.0, 1.0), (0.9, 2.0), (0.8, 1.0)])
    )
    table = parquet.read_table(folder.predictions)
    assert np.stack([table[f"probability_{name}"] for name in CLASSES], axis=1) == pytest.approx(wanted)
    assert np.mean(table["loss"]) == pytest.approx(log_loss(LABELS, wanted))
    code, shown = said(capsys, str(sweep.path), "-o", str(tmp_path / "best"), "--method", "mean", "--top", "2")
    assert code == 0 and sorted(one.weight for one in folder.read()) == [0.5, 0.5]
    code, shown = said(capsys, str(sweep.path), "-o", str(tmp_path / "best"))
    estimates = read_json(folder.file)["scores"]
    best = min(("mean of the best 3", "greedy"), key=lambda name: estimates[name]["loss"])
    assert code == 0 and f"{best} is better than the best single model on unseen rows" in shown
    assert folder.predictions.is_file()
    folder.write(members, {})  # and then killed: no answers of other members stay beside it
    assert folder.read() == members and not folder.predictions.exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere", "-o", "best"], "nowhere is no sweep: there is no such folder"),
        (["sweep", "-o", "sweep"], "-o sweep is one of the folders that are read; choose another place by -o"),
        (
            ["sweep", "-o", "mine"],
            "holds files that danube-sweep did not write (notes.txt); give a new or empty folder by -o",
        ),
        (["sweep", "-o", "not/there"], "there is no folder not; make it or choose another place"),
        (["sweep", "-o", "best", "--top", "0"], "--top must be at least 1, got 0"),
        (["sweep", "-o", "best", "--candidates", "1"], "--candidates must be at least 2, got 1"),
        (["sweep"], "the following arguments are required: -o/--output"),
        (["sweep", "-o", "best"], "an ensemble needs two models of the same rows: 1 of 2 trials are not finished"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:20],
)
def test_bad_input_costs_one_line_and_no_files(
    sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], line: str,
) -> None:  # fmt: skip
    finished(sweep, ["lora.rank=2"], columns(sure(0, 1.0)))
    finished(sweep, ["lora.rank=4"], columns(sure(1, 1.0)), state="failed")
    sweep.write({"settings": {"sweep": {}}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    code, shown = said(capsys, *arguments)
    assert code == 2 and line in shown and len(shown.splitlines()) == 1
    assert not (tmp_path / "best").exists() and (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_a_damaged_file_of_members_is_one_line(tmp_path: Path) -> None:
    folder = EnsembleFolder(tmp_path)
    uneven = {"name": "one", "weight": 1, "temperature": 1, "runs": ["a", "b"], "hashes": ["0"]}
    one_hash = json.dumps({"format": 1, "members": [uneven]})
    for text in (one_hash, '{"format": 1}', '{"format": 1, "members": [{"name": 3}]}', '{"format": 9}', "{"):
        folder.file.write_text(text)
        with pytest.raises(CheckpointError, match=r"ensemble\.json"):
            folder.read()


@pytest.mark.parametrize(
    ("difference", "words"), [(-0.6, "is better than"), (0.6, "is worse than"), (0.01, "is no better than")]
)
def test_the_verdict_is_what_the_interval_says(difference: float, words: str) -> None:
    assert words in _verdict("the mean", Estimate(1.0, difference, 0.02))
