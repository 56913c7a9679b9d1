"""The ranking: rows, means, intervals and ties, whatever state the trials are in, and the tables of it."""

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import tiny_config
from filelock import FileLock
from pyarrow import parquet
from rich.console import Console
from scipy import stats

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.stored import plain_config
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import CheckpointError
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_files import write
from danube_sweep.results.ranking_table import _means_of, ranking_table, summary_lines
from danube_sweep.results.rows import Ranking, Row, winner
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Attempt, SweepFolder, append_attempt

IDS = [f"row {number}" for number in range(200)]
NOISE = np.random.default_rng(1).normal(size=(50, len(IDS)))


def trial(sweep: Path, *overrides: str, config: Config | None = None) -> RunFolder:
    """A trial of our own launcher: trial.json and config.yaml, nothing run yet."""
    config = config or tiny_config(*(text for text in overrides))
    ((entry, _),) = SweepFolder(sweep).add([(config, list(overrides), None)])
    return entry.folder


def stock(sweep: Path, number: int, config: Config) -> RunFolder:
    """A run folder as Hydra's own launchers lead to it."""
    folder = RunFolder(sweep / f"{number}-{trial_hash(config)[:8]}")
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(plain_config(config), sort_keys=False))
    return folder


def predict(folder: RunFolder, losses: Any, ids: Sequence[Any] = IDS, **columns: Any) -> None:
    parquet.write_table(
        pa.table({"id": list(ids), "loss": pa.array(losses, pa.float32()), **columns}), folder.predictions
    )


def end(folder: RunFolder, log_loss: float | None = None, state: str = "finished", **fields: Any) -> RunFolder:
    """A result like that of a run, and predictions whose mean loss is `log_loss`, if there is one."""
    found: dict[str, Any] = {"trial": folder.path.name[-8:], "state": state, **fields}
    if log_loss is not None:
        found.setdefault("validation", {"log_loss": log_loss, "accuracy": 1 - log_loss, "ece": 0.05})
        found["measured"] = {
            "peak_memory_bytes": 2**30,
            "tokens_per_s": 1000.0,
            "seconds": {"data": 9.0, "train": 20.0, "validation": 5.0},
        }
        found["parameters"] = {"backbone": 1000, "trainable": fields.get("trainable", 10)}
        if not folder.predictions.is_file():
            predict(folder, np.full(len(IDS), log_loss))
    folder.result.write_text(json.dumps(found))
    return folder


def noisy(folder: RunFolder, mean: float, number: int, scale: float = 0.1) -> RunFolder:
    """A finished trial whose losses scatter around `mean` in their own way."""
    losses = mean + scale * (NOISE[number] - NOISE[number].mean())
    predict(folder, losses)
    return end(folder, mean)


def shown(ranking: Ranking, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, color_system=None).print(ranking_table(ranking, width))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def records(folder: Path) -> list[dict[str, str]]:
    with (folder / "ranking.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def row_of(ranking: Ranking, **values: Any) -> Row:
    named = {key.replace("__", "."): value for key, value in values.items()}
    (found,) = [row for row in ranking.rows if named.items() <= row.values.items()]
    return found


def test_trials_that_differ_by_seed_are_one_row_with_mean_and_deviation(tmp_path: Path) -> None:
    for rank_, losses in [(8, [0.4, 0.5, 0.9]), (16, [0.3, 0.5, 0.4])]:
        for seed, loss in enumerate(losses):
            end(trial(tmp_path, f"lora.rank={rank_}", "schedule=cosine", f"seed={seed}"), loss)
    ranking = rank_sweep(tmp_path)
    assert ranking.varied == ["lora.rank"]
    first, second = ranking.rows
    assert (first.rank, first.values, first.seeds, first.count) == (1, {"lora.rank": 16}, [0, 1, 2], 3)
    assert (first.mean, first.deviation) == (pytest.approx(0.4), pytest.approx(0.1))
    mean = (0.4 + 0.5 + 0.9) / 3
    assert second.mean == pytest.approx(mean)
    assert second.deviation == pytest.approx((sum((x - mean) ** 2 for x in (0.4, 0.5, 0.9)) / 2) ** 0.5)
    assert second.difference == pytest.approx(mean - 0.4)
    assert first.metrics == pytest.approx({"log_loss": 0.4, "accuracy": 0.6, "ece": 0.05})
    assert (first.seconds, first.tokens_per_s, first.peak_memory_bytes) == (25, 1000, 2**30)
    assert (first.difference, first.interval, first.tie) == (None, None, False)
    assert winner(ranking) is first
    assert "(mean of 3 seeds)" in summary_lines(ranking)[-1]


def test_an_equal_row_ties_with_the_best_and_a_clearly_worse_one_does_not(tmp_path: Path) -> None:
    for seed in range(2):
        for row, (rank_, mean) in enumerate([(2, 0.500), (4, 0.505), (8, 0.600)]):
            noisy(trial(tmp_path, f"lora.rank={rank_}", f"seed={seed}"), mean + seed / 1000, row)
    best, equal, worse = rank_sweep(tmp_path).rows
    assert equal.interval is not None
    assert worse.interval is not None
    assert equal.tie
    assert equal.interval[0] < 0.005 < equal.interval[1]
    assert not worse.tie
    assert 0 < worse.interval[0] < 0.1 < worse.interval[1]
    assert "tied with 1 other (95 %" in summary_lines(rank_sweep(tmp_path))[-1]
    assert rank_sweep(tmp_path) == rank_sweep(tmp_path)
    assert best.values == {"lora.rank": 2}


def test_seeds_are_averaged_per_example_before_the_bootstrap(tmp_path: Path) -> None:
    """Two seeds that err on opposite examples: their mean differs by the same on every example."""
    for seed, sign in [(0, 1), (1, -1)]:
        end(trial(tmp_path, "lora.rank=2", f"seed={seed}"), 0.5)
        folder = trial(tmp_path, "lora.rank=4", f"seed={seed}")
        predict(folder, 0.6 + sign * NOISE[0])
        end(folder, 0.6)
    interval = rank_sweep(tmp_path).rows[1].interval
    assert interval == pytest.approx((0.1, 0.1), abs=1e-6)


def fold_of(sweep: Path, rank_: int, fold: int, loss: float, *overrides: str, folds: int = 4) -> RunFolder:
    """A finished trial whose validation rows are the `fold`-th of four parts of IDS, each with its own losses."""
    folder = trial(sweep, f"lora.rank={rank_}", f"data.folds={folds}", f"data.fold={fold}", *overrides)
    rows = slice(fold * 50, fold * 50 + 50)
    predict(folder, loss + 0.1 * (NOISE[0][rows] - NOISE[0][rows].mean()), IDS[rows])
    return end(folder, loss)


def test_trials_that_differ_by_fold_are_one_row_compared_over_the_rows_of_all_folds(tmp_path: Path) -> None:
    for fold, loss in enumerate([0.3, 0.5, 0.4, 0.6]):
        fold_of(tmp_path, 2, fold, loss)
        fold_of(tmp_path, 4, 3 - fold, 0.7)
    ranking = rank_sweep(tmp_path)
    assert ranking.varied == ["lora.rank"]
    best, other = ranking.rows
    assert (best.mean, best.deviation) == (pytest.approx(0.45), pytest.approx(0.1291, abs=1e-4))
    assert (best.folds, list(best.by_fold), best.seeds, best.seed_count) == (4, [0, 1, 2, 3], [0], 1)
    assert ranking.notes == []
    low, high = other.interval or (0, 0)
    # What is left of two rows and four folds: the differences' own deviation, on 3 degrees of freedom.
    differences = 0.7 - np.array([0.3, 0.5, 0.4, 0.6])
    half = stats.t.ppf(0.975, 3) * differences.std(ddof=1) / 4**0.5
    assert ((low + high) / 2, (high - low) / 2) == (pytest.approx(0.25), pytest.approx(half, rel=0.08))
    assert "training noise: sd 0.091 over folds, pooled over 2 rows" in (ranking.covers or "")
    assert "(mean of 4 folds)" in summary_lines(ranking)[-1]
    assert re.search(r"folds +seconds", shown(ranking, 200))
    assert re.search(r"1 +2 .*best .* 4 +25 ", shown(ranking, 200))
    write(ranking, tmp_path)
    assert [(record["folds"], record["seeds"]) for record in records(tmp_path)] == [("0 1 2 3", "0")] * 2


def test_seeds_of_a_fold_are_averaged_and_a_missing_one_leaves_the_fold(tmp_path: Path) -> None:
    for fold in range(4):
        fold_of(tmp_path, 2, fold, 0.5, "seed=0")
        fold_of(tmp_path, 2, fold, 0.3, "seed=1")
        fold_of(tmp_path, 4, fold, 0.6, "seed=0")
    fold_of(tmp_path, 4, 2, 0.8, "seed=1")
    ranking = rank_sweep(tmp_path)
    best, other = ranking.rows
    assert (best.count, best.seeds, best.seed_count) == (8, [0, 1], 2)
    assert (other.count, [len(names) for names in other.by_fold.values()]) == (5, [1, 1, 2, 1])
    # Over what both have: +0.1 in four folds of the first seed, +0.5 in one of the second.
    assert other.difference == pytest.approx((4 * 0.1 + 0.5) / 5)
    low, high = other.interval or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.18) and high - low > 0
    assert ranking.notes == [
        "1 row has other seeds or folds than the best row: its difference is over those that both have"
    ]
    assert [_means_of(row) for row in ranking.rows] == [
        " (mean of 4 folds x 2 seeds)",
        " (mean of 5 trials in 4 folds)",
    ]
    assert "(mean of 4 folds x 2 seeds)" in summary_lines(ranking)[-1]
    for title in ("folds", "seeds"):
        assert title in shown(ranking, 200)


def test_a_row_with_fewer_folds_is_compared_over_those_that_it_has(tmp_path: Path) -> None:
    for fold in range(4):
        fold_of(tmp_path, 2, fold, 0.5)
    fold_of(tmp_path, 4, 1, 0.6)
    fold_of(tmp_path, 8, 0, 0.55, folds=5)
    ranking = rank_sweep(tmp_path)
    assert ranking.varied == ["lora.rank", "data.folds"]
    assert [row.interval is None for row in ranking.rows] == [True, False, False]
    assert [row.difference for row in ranking.rows] == [None, pytest.approx(0.05), pytest.approx(0.1)]
    assert ranking.notes == [
        "2 rows have other seeds or folds than the best row: their differences are over those that both have",
    ]
    table = shown(ranking, 200)
    assert "1 of 4" in table
    assert "1 of 5" in table


def test_a_fold_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    first, second = (fold_of(tmp_path, 2, fold, 0.5) for fold in (0, 1))
    shutil.copytree(second.path, tmp_path / "003_copy")
    ranking = rank_sweep(tmp_path)
    assert ranking.rows[0].used == [first.path.name, second.path.name]
    assert ranking.notes == [f"003_copy is the same trial as {second.path.name} and does not count"]


def middle(row: Row) -> float:
    assert row.interval is not None
    return sum(row.interval) / 2


def test_examples_are_matched_by_id_and_other_rows_give_no_interval(tmp_path: Path) -> None:
    losses = 0.5 + 0.1 * NOISE[0]
    numbers = list(range(len(IDS)))
    best = trial(tmp_path, "lora.rank=2")
    predict(best, losses, numbers)
    end(best, 0.5)
    shuffled = trial(tmp_path, "lora.rank=4")
    order = np.random.default_rng(0).permutation(len(IDS))
    predict(shuffled, losses[order] + 0.1, [str(numbers[place]) for place in order])
    end(shuffled, 0.6)
    end(trial(tmp_path, "data.max_length=80"), 0.7)
    missing = end(trial(tmp_path, "lora.rank=16"), 0.8)
    missing.predictions.unlink()
    torn = end(trial(tmp_path, "lora.rank=32"), 0.9)
    torn.predictions.write_bytes(torn.predictions.read_bytes()[:-9])
    ranking = rank_sweep(tmp_path)
    assert middle(ranking.rows[1]) == pytest.approx(0.1, abs=1e-6)
    assert [row.interval for row in ranking.rows[2:]] == [None, None, None]
    assert ranking.notes == [
        "no interval for 1 row: other validation rows than the best row",
        "no interval for 1 row: no predictions",
        "no interval for 1 row: damaged predictions",
    ]
    assert ranking.rows[2].difference == pytest.approx(0.2)


def test_ids_that_are_there_twice_are_matched_by_position_or_not_at_all(tmp_path: Path) -> None:
    twice = ["same"] * len(IDS)
    for number, (rank_, ids) in enumerate([(2, twice), (4, twice), (8, [*twice[1:], "x"]), (16, [*IDS[1:], IDS[1]])]):
        folder = trial(tmp_path, f"lora.rank={rank_}")
        predict(folder, 0.5 + number / 10 + 0 * NOISE[0], ids)
        end(folder, 0.5 + number / 10)
    rows = rank_sweep(tmp_path).rows
    assert middle(rows[1]) == pytest.approx(0.1, abs=1e-6)
    assert [row.interval for row in rows[2:]] == [None, None]


def test_weights_of_language_modelling_count(tmp_path: Path) -> None:
    weight = np.r_[np.full(100, 3.0), np.full(100, 1.0)]
    for number, second in enumerate([0.5, 0.9]):
        folder = trial(tmp_path, f"lora.rank={number + 1}")
        predict(folder, np.r_[np.full(100, 0.5), np.full(100, second)], weight=weight)
        end(folder, float(np.average([0.5, second], weights=[3, 1])))
    other = trial(tmp_path, "lora.rank=9")
    predict(other, np.full(200, 0.8), weight=weight + 1)
    end(other, 0.8)
    ranking = rank_sweep(tmp_path)
    assert middle(ranking.rows[1]) == pytest.approx(0.1)
    assert ranking.notes == ["no interval for 1 row: other token counts than the best row"]


def test_accuracy_has_intervals_of_its_own_and_is_maximised(tmp_path: Path) -> None:
    labels = ["=yes" if number % 2 else "no" for number in range(200)]
    for number, right in enumerate([180, 178, 100, 179, 177, 101]):
        folder = trial(tmp_path, f"lora.rank={number % 3 + 1}", f"seed={number // 3}")
        sure = [0.9 if place < right else 0.1 for place in np.random.default_rng(number).permutation(200)]
        yes = [one if label == "=yes" else 1 - one for one, label in zip(sure, labels, strict=True)]
        columns = {"probability_=yes": yes, "probability_no": [1 - one for one in yes]}
        predict(folder, np.full(200, 0.5), label=labels, **columns)
        end(folder, 0.5, validation={"log_loss": 0.5, "accuracy": right / 200})
    SweepFolder(tmp_path).write({"settings": {"sweep": {"metric": "validation/accuracy", "goal": "maximize"}}})
    ranking = rank_sweep(tmp_path)
    assert [row.mean for row in ranking.rows] == pytest.approx([0.8975, 0.8875, 0.5025])
    assert (ranking.metric, ranking.goal) == ("validation/accuracy", "maximize")
    assert [row.tie for row in ranking.rows] == [False, True, False]
    low, high = ranking.rows[2].interval or (0, 0)
    assert low < -0.4 < high < 0


@pytest.mark.parametrize(
    ("metric", "goal"),
    [("validation/ece", "minimize"), ("measured/seconds/train", "maximize"), ("parameters/trainable", "minimize")],
)
def test_other_metrics_are_ranked_without_interval_or_tie(tmp_path: Path, metric: str, goal: str) -> None:
    for number in (3, 1, 2):
        folder = trial(tmp_path, f"lora.rank={number}")
        end(folder, 0.5, validation={"log_loss": 0.5, "ece": float(number)}, trainable=number)
        result = json.loads(folder.result.read_text())
        result["measured"]["seconds"]["train"] = -number
        folder.result.write_text(json.dumps(result))
    ranking = rank_sweep(tmp_path, [(metric, goal)])
    assert [row.values["lora.rank"] for row in ranking.rows] == [1, 2, 3]
    assert all(row.interval is None and not row.tie for row in ranking.rows)
    assert ranking.rows[1].difference is not None
    assert "tied" not in summary_lines(ranking)[-1]


def test_trials_without_a_metric_come_last_with_state_and_reason(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=1"), state="oom", error="OutOfMemory: too much\nTraceback")
    end(trial(tmp_path, "lora.rank=2"), 0.5)
    trial(tmp_path, "lora.rank=3")
    trial(tmp_path, "lora.rank=4").checkpoints.mkdir()
    preempted = trial(tmp_path, "lora.rank=5")
    append_attempt(preempted, Attempt("failed", 1.0, "then", "here"))
    append_attempt(preempted, Attempt("preempted", 1.0, "then", "here", reason="asked to stop"))
    deleted = trial(tmp_path, "lora.rank=6")
    append_attempt(deleted, Attempt("finished", 1.0, "then", "here"))
    SweepFolder(tmp_path).add_invalid([(["lora.rank=0"], "lora.rank must be at least 1, got 0")])
    ranking = rank_sweep(tmp_path)
    states = {row.values["lora.rank"]: row.state for row in ranking.rows}
    expected = {2: "finished", 1: "oom", 3: "waiting", 4: "interrupted", 5: "preempted", 6: "waiting", 0: "invalid"}
    assert states == expected
    assert [row.rank for row in ranking.rows] == [1, None, None, None, None, None, None]
    assert row_of(ranking, lora__rank=1).error == "OutOfMemory: too much"
    lines = summary_lines(ranking)
    assert lines[0] == "7 trials: 2 waiting, 1 oom, 1 finished, 1 interrupted, 1 preempted, 1 invalid"
    assert [line.partition(": ")[2] for line in lines[1:3]] == [
        "oom: OutOfMemory: too much",
        "invalid: lora.rank must be at least 1, got 0",
    ]
    assert lines[-1] == "best: lora.rank=2: validation/log_loss 0.5000, 95 % 0.5000 .. 0.5000"
    assert "OutOfMemory" in shown(ranking, 120)


@pytest.mark.parametrize("name", ["lock", "claim"])
def test_a_trial_that_another_one_holds_is_running(tmp_path: Path, name: str) -> None:
    folder = trial(tmp_path, "lora.rank=1")
    append_attempt(folder, Attempt("preempted", 1.0, "then", "here"))
    file = getattr(folder, name)
    with FileLock(file, fallback_to_soft=False):
        assert [one.state for one in rank_sweep(tmp_path).trials] == ["running"]
    assert [one.state for one in rank_sweep(tmp_path).trials] == ["preempted"]
    assert winner(rank_sweep(tmp_path)) is None
    assert summary_lines(rank_sweep(tmp_path))[-1] == "no trial has finished yet"


def test_a_row_counts_its_pruned_trials_at_their_best_and_loses_only_failed_ones(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=2", "seed=0"), 0.5)
    end(trial(tmp_path, "lora.rank=2", "seed=1"), 0.8, state="pruned")
    end(trial(tmp_path, "lora.rank=2", "seed=2"), state="oom", error="OutOfMemory: x")
    end(trial(tmp_path, "lora.rank=4", "seed=0"), 0.4, state="pruned")
    end(trial(tmp_path, "lora.rank=8", "seed=0"), state="failed", error="ValueError: x")
    early, mixed, failed = rank_sweep(tmp_path).rows
    assert (early.mean, early.state, early.pruned, early.rank) == (0.4, "pruned", True, 1)
    assert (mixed.mean, mixed.count, mixed.seeds, mixed.lost) == (pytest.approx(0.65), 2, [0, 1], "1 oom")
    assert mixed.state == "1 finished, 1 pruned, 1 oom"
    assert winner(rank_sweep(tmp_path)) == early
    assert (mixed.difference, early.difference) == (pytest.approx(0.1), None)
    assert failed.mean is None
    last = summary_lines(rank_sweep(tmp_path))[-1]
    assert last.startswith("best: lora.rank=4: validation/log_loss 0.4000") and "it ended early" in last


def course(folder: RunFolder, *losses: float, of: int = 4) -> RunFolder:
    """Gives a trial its validations at equal steps."""
    write_json(folder.environment, {"total_steps": 10 * of})
    rows = [f"{10 * number},validation,{loss}" for number, loss in enumerate(losses, start=1)]
    folder.metrics.write_text("\n".join(["step,part,log_loss", *rows]) + "\n")
    return folder


def test_a_row_that_ended_early_has_its_chance_to_have_won(tmp_path: Path) -> None:
    for rank, curve in ((1, (0.9, 0.7, 0.6, 0.5)), (2, (1.0, 0.75, 0.62, 0.55)), (3, (0.92,)), (4, (3.0, 2.9))):
        found = course(trial(tmp_path, f"lora.rank={rank}"), *curve)
        end(found, min(curve), state="finished" if len(curve) == 4 else "pruned")
    ranking = rank_sweep(tmp_path)
    chance = {row.values["lora.rank"]: row.regret for row in ranking.rows}
    assert chance[1] is chance[2] is None
    assert chance[3] is not None and chance[3] > 0.05 and chance[4] is not None and chance[4] < 0.001
    lines = "\n".join(summary_lines(ranking))
    assert f"regret: {ranking.regret:.0%} chance" in lines and "that one of the 2 rows that ended early would" in lines
    assert "1 row that ended early rests on one validation" in lines
    assert "regret" in shown(ranking, 200)


def test_the_pruned_trials_of_a_row_with_a_finished_one_have_their_chance_too(tmp_path: Path) -> None:
    curves = {(1, 0): (0.9, 0.7, 0.6, 0.5), (1, 1): (0.92, 0.8), (2, 0): (1.0, 0.8, 0.7, 0.6), (2, 1): (0.93,)}
    for (rank, seed), curve in curves.items():
        found = course(trial(tmp_path, f"lora.rank={rank}", f"seed={seed}"), *curve)
        end(found, min(curve), state="finished" if len(curve) == 4 else "pruned")
    ranking = rank_sweep(tmp_path)
    assert [(row.state, row.readings) for row in ranking.rows] == [("1 finished, 1 pruned", n) for n in (2, 1)]
    assert all(row.regret is not None for row in ranking.rows) and ranking.regret == pytest.approx(
        ranking.rows[1].regret
    )
    assert any("that the row that ended early would have won" in line for line in summary_lines(ranking))


def test_a_paused_trial_is_ranked_by_what_it_has_so_far(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=1"), 0.5)
    rests = trial(tmp_path, "lora.rank=2")
    write_json(rests.paused, {"state": "paused", "validation": {"log_loss": 0.6}})
    first, second = rank_sweep(tmp_path).rows
    assert (first.state, second.state, second.mean, second.pruned) == ("finished", "paused", 0.6, True)
    assert "1 paused" in "\n".join(summary_lines(rank_sweep(tmp_path)))
    with FileLock(rests.claim, fallback_to_soft=False):  # it was promoted
        assert [row.state for row in rank_sweep(tmp_path).rows] == ["finished", "running"]


def test_damaged_files_do_not_count_and_are_said(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=1"), 0.5)
    cut = end(trial(tmp_path, "lora.rank=2"), 0.4)
    cut.result.write_text(cut.result.read_text()[:40])
    end(trial(tmp_path, "lora.rank=4"), 0.6).config.write_text("a: [1,")
    (tmp_path / "test.json").write_text('{"trials": ')
    ranking = rank_sweep(tmp_path)
    assert [(row.values["lora.rank"], row.state) for row in ranking.rows] == [
        (1, "finished"), (2, "waiting"), (4, "damaged")
    ]  # fmt: skip
    assert ranking.notes[:3] == [
        f"{cut.path.name}/result.json is cut short or damaged and does not count",
        f"{ranking.rows[2].trials[0]} is left out: config.yaml is damaged, and the overrides in trial.json no longer "
        "lead to the same trial",
        "test.json is cut short or damaged and does not count",
    ]
    assert ranking.notes[0] in summary_lines(ranking)


def test_losses_that_are_no_numbers_are_no_metric(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=1"), 0.5)
    end(trial(tmp_path, "lora.rank=2"), float("nan"))
    assert [row.rank for row in rank_sweep(tmp_path).rows] == [1, None]


def test_folders_of_hydras_own_launchers_are_compared_by_their_configs(tmp_path: Path) -> None:
    for number, (rank_, seed) in enumerate([(8, 0), (8, 1), (16, 0), (16, 1)]):
        end(stock(tmp_path, number, tiny_config(f"lora.rank={rank_}", f"seed={seed}", "device.threads=1")), rank_ / 100)
    (tmp_path / "multirun.yaml").write_text("a: 1")
    (tmp_path / "logs").mkdir()
    ranking = rank_sweep(tmp_path)
    assert (ranking.varied, ranking.metric, ranking.goal) == (["lora.rank"], "validation/log_loss", "minimize")
    assert [(row.values, row.seeds) for row in ranking.rows] == [
        ({"lora.rank": 8}, [0, 1]),
        ({"lora.rank": 16}, [0, 1]),
    ]


def test_what_follows_from_another_choice_is_left_out(tmp_path: Path) -> None:
    models = [["model=danube3_500m", "model.init=random"], ["model=danube3_4b", "model.init=random"]]
    heads = [["head=preference"], ["head=causal"]]
    configs = [
        tiny_config(*model, *head, f"optimizer.weight_decay={decay}")
        for model in models
        for head in heads
        for decay in (0, 0.1)
    ]
    for number, config in enumerate(configs):
        end(stock(tmp_path, number, config), 0.5 + number / 100)
    ranking = rank_sweep(tmp_path)
    assert ranking.varied == ["model", "head", "optimizer.weight_decay"]
    assert ranking.rows[0].values == {
        "model": "h2o-danube3-500m-base",
        "head": "preference",
        "optimizer.weight_decay": 0.0,
    }


def test_random_models_are_told_by_their_shape_and_a_learning_rate_of_its_own_is_shown(tmp_path: Path) -> None:
    shapes = [("64", "2"), ("128", "4")]
    for number, (hidden, layers) in enumerate(shapes):
        shape = [f"model.shape.hidden_size={hidden}", f"model.shape.num_hidden_layers={layers}"]
        end(stock(tmp_path / "shape", number, tiny_config(*shape)), 0.5)
        end(stock(tmp_path / "rate", number, tiny_config(f"optimizer.lr=0.{number + 1}", "precision=fp32")), 0.5)
        end(stock(tmp_path / "storage", number, tiny_config(f"precision={['fp32', 'bf16'][number]}")), 0.5)
    assert [row.values for row in rank_sweep(tmp_path / "shape").rows] == [{"model": "64x2"}, {"model": "128x4"}]
    assert [row.values for row in rank_sweep(tmp_path / "rate").rows] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]
    assert [row.values for row in rank_sweep(tmp_path / "storage").rows] == [
        {"precision": "fp32"},
        {"precision": "bf16"},
    ]


def test_overrides_say_what_varies_and_a_default_is_read_from_the_config(tmp_path: Path) -> None:
    end(trial(tmp_path, "model=danube_tiny", "optimizer.lr=1e-3", "name=a", "trainer.epochs=2"), 0.3)
    end(trial(tmp_path, "optimizer.lr=0.0010", "lora.rank=32", "name=b", "tracking=none"), 0.4)
    end(trial(tmp_path, "lora=none", "optimizer.lr=0.001"), 0.5)
    ranking = rank_sweep(tmp_path)
    assert ranking.varied == ["lora.rank", "lora"]
    assert [row.values for row in ranking.rows] == [
        {"lora.rank": 16, "lora": "lora"},
        {"lora.rank": 32, "lora": "lora"},
        {"lora.rank": None, "lora": "none"},
    ]
    end(trial(tmp_path, "+experiment=embedded", config=tiny_config("lora.rank=4", "optimizer.lr=0.001")), 0.6)
    assert rank_sweep(tmp_path).varied == ["lora.rank", "lora", "experiment"]


def test_a_smaller_micro_batch_after_an_oom_makes_no_row_of_its_own(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=2", "seed=0"), 0.5)
    lowered = end(trial(tmp_path, "lora.rank=2", "seed=1"), 0.6)
    lowered.adjusted.write_text('{"trainer.micro_batch": 2}')
    assert [row.count for row in rank_sweep(tmp_path).rows] == [2]


def test_a_folder_that_was_being_added_when_its_process_died_is_no_trial(tmp_path: Path) -> None:
    end(trial(tmp_path, "lora.rank=2"), 0.5)
    half = trial(tmp_path, "lora.rank=4")
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    half.trial.unlink()
    assert len(rank_sweep(tmp_path).rows) == 1


def test_accuracy_is_better_when_higher_unless_said_otherwise() -> None:
    assert objectives(Sweep(metric=["validation/accuracy", "validation/log_loss"])) == [
        ("validation/accuracy", "maximize"),
        ("validation/log_loss", "minimize"),
    ]
    assert objectives(Sweep(metric="validation/accuracy", goal="minimize"))[0][1] == "minimize"


def test_two_folders_of_one_trial_count_once(tmp_path: Path) -> None:
    for number in range(2):
        end(stock(tmp_path, number, tiny_config()), 0.5)
    ranking = rank_sweep(tmp_path)
    assert [(row.count, row.deviation) for row in ranking.rows] == [(1, None)]
    assert "is the same trial as" in ranking.notes[0]


def test_several_objectives_mark_the_pareto_front(tmp_path: Path) -> None:
    points = [(0.5, 10), (0.4, 20), (0.6, 5), (0.6, 12), (0.5, 10)]
    for number, (loss, trainable) in enumerate(points):
        end(trial(tmp_path, f"lora.rank={number + 1}"), loss, trainable=trainable)
    end(trial(tmp_path, "lora.rank=9"), state="failed", error="ValueError: x")
    metrics = ["validation/log_loss", "parameters/trainable"]
    SweepFolder(tmp_path).write({"settings": {"sweep": {"metric": metrics, "goal": "minimize"}}})
    ranking = rank_sweep(tmp_path)
    front = {row.values["lora.rank"] for row in ranking.rows if row.front}
    assert front == {1, 2, 3, 5}
    assert ranking.rows[0].objectives == [0.4, 20]
    assert summary_lines(ranking)[-1].endswith("; 4 rows are on the Pareto front")
    assert "front" in shown(ranking)
    write(ranking, tmp_path)
    assert [record["pareto"] for record in records(tmp_path)].count("true") == 4


def test_scores_on_the_test_part_are_shown_and_change_no_rank(tmp_path: Path) -> None:
    config = tiny_config("lora.rank=2")
    for seed in (0, 1):
        end(trial(tmp_path, "lora.rank=2", f"seed={seed}"), 0.5)
    end(trial(tmp_path, "lora.rank=4"), 0.6)
    first, second, _ = [replace(config, seed=seed) for seed in (0, 1, 2)]
    hashes = [trial_hash(one) for one in (first, second)]
    for folder, identity in zip(sorted(tmp_path.glob("*rank-2*")), hashes, strict=True):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**result, "trial": identity}))
    scores = {hashes[0]: {"log_loss": 0.7, "accuracy": 0.5}, hashes[1]: {"log_loss": 0.9, "accuracy": 0.6}}
    (tmp_path / "test.json").write_text(json.dumps({"trials": scores}))
    best, other = rank_sweep(tmp_path).rows
    assert (best.test, other.test) == (pytest.approx({"log_loss": 0.8, "accuracy": 0.55}), {})
    assert "test log_loss 0.8000" in summary_lines(rank_sweep(tmp_path))[-1]
    assert "test log_loss" in shown(rank_sweep(tmp_path), 120)


def test_names_cannot_run_in_a_spreadsheet_or_a_page(tmp_path: Path) -> None:
    names = [
        '=HYPERLINK("https://x.y","\N{GRINNING FACE}")',
        "@SUM(1)",
        "<script>alert(1)</script>|`x`",
        "-2",
        "a\x1b[2Jb",
    ]
    for number, name in enumerate(names):
        config = tiny_config("lora.rank=2", f"optimizer.weight_decay={number / 100}")
        end(trial(tmp_path, "lora.rank=2", f"data.text={name}", config=config), 0.5 + number / 10)
    end(
        trial(tmp_path, "lora.rank=2", "data.text=x", config=tiny_config("lora.rank=2", "optimizer.weight_decay=0.9")),
        state="failed",
        error="+1|2\n3",
    )
    ranking = rank_sweep(tmp_path)
    write(ranking, tmp_path)
    found = records(tmp_path)
    assert [record["data.text"] for record in found[:3]] == [f"'{names[0]}", "'@SUM(1)", names[2]]
    assert (found[3]["data.text"], found[5]["error"]) == ("-2", "'+1|2")
    assert float(found[1]["difference"]) == ranking.rows[1].difference
    assert float(found[1]["validation/log_loss"]) == 0.6
    page = (tmp_path / "ranking.md").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    for encoding in ("utf-8", "ascii"):
        text = shown(ranking, 100, encoding)
        assert "\x1b" not in text
        assert "HYPERLINK" in text


def test_the_table_fits_eighty_columns_and_the_signs_of_the_console(tmp_path: Path) -> None:
    varied = [
        ("lora.rank=8", "optimizer.lr=0.000123", "schedule.warmup=0.1", "lora=lora"),
        ("lora.rank=16", "optimizer.lr=0.001", "schedule.warmup=0.05", "lora=dora"),
    ]
    for number, overrides in enumerate(varied):
        for seed in (0, 1):
            noisy(trial(tmp_path, *overrides, f"seed={seed}"), 0.5 + number / 20 + seed / 100, 2 * number + seed)
    end(trial(tmp_path, *varied[0][1:3], "lora=none"), state="oom", error="OutOfMemory: " + "x" * 99)
    ranking = rank_sweep(tmp_path)
    narrow, wide = shown(ranking), shown(ranking, 200)
    assert max(map(len, narrow.splitlines())) <= 80
    for title in ("rank", "lr", "warmup", "lora", "log_loss", "vs best", "state"):
        assert title in narrow
    assert "tokens/s" not in narrow
    assert all(title in wide for title in ("tokens/s", "GiB", "ece", "accuracy", "seconds", "reason"))
    assert "\N{PLUS-MINUS SIGN}0.0071" in wide
    plain = shown(ranking, 200, "ascii")
    assert plain.isascii()
    assert "+-0.0071" in plain
    tiny = shown(ranking, 40)
    assert max(map(len, tiny.splitlines())) <= 40
    assert "0.5550 \N{PLUS-MINUS SIGN}0.0071" in tiny


def test_long_paths_keep_their_end(tmp_path: Path) -> None:
    for number in range(2):
        path = f"/very/long/path/to/some/folder/with/many/parts/of/data/train{number}.csv"
        end(trial(tmp_path, f"data.path={path}", config=tiny_config(f"lora.rank={number + 1}")), 0.5 + number)
    assert "data/train1.csv" in shown(rank_sweep(tmp_path), 60)


def test_csv_and_page_hold_every_row(tmp_path: Path) -> None:
    noisy(trial(tmp_path, "lora.rank=2"), 0.5, 0)
    noisy(trial(tmp_path, "lora.rank=4"), 0.5 + 1 / 300, 1)
    trial(tmp_path, "lora.rank=8")
    ranking = rank_sweep(tmp_path)
    write(ranking, tmp_path)
    found = records(tmp_path)
    assert [record["rank"] for record in found] == ["1", "2", ""]
    assert float(found[1]["validation/log_loss"]) == 0.5 + 1 / 300
    assert (found[1]["tie"], found[2]["state"], found[0]["seeds"]) == ("true", "waiting", "0")
    page = (tmp_path / "ranking.md").read_text(encoding="utf-8")
    assert page.startswith("# Ranking by validation/log_loss (minimize)\n")
    assert "0.5033" in page
    assert f"- {ranking.covers}" in page and "cover the choice of 200 validation rows" in page
    write(ranking, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["ranking.csv", "ranking.md"]


def test_a_folder_without_trials_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "empty" / "logs").mkdir(parents=True)
    for folder in ("empty", "missing"):
        with pytest.raises(CheckpointError, match=f"{folder} is no sweep: "):
            rank_sweep(tmp_path / folder)
    other = trial(tmp_path / "other", "lora.rank=1").path.parent
    (other / "sweep.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="another version"):
        rank_sweep(other)


def test_two_hundred_results_are_ranked(tmp_path: Path) -> None:
    """Single trials whose metrics lie evenly: their spread may all be noise, so none is told apart."""
    plain = plain_config(tiny_config())
    for number in range(200):
        folder = RunFolder(tmp_path / f"{number:03d}_rank-{number}_abcdef01")
        folder.path.mkdir()
        plain["lora"]["rank"] = number + 1
        folder.config.write_text(yaml.safe_dump(plain))
        described = {"format": 1, "number": number, "hash": f"{number:032x}", "overrides": [f"lora.rank={number + 1}"]}
        folder.trial.write_text(json.dumps({**described, "draw": None}))
        noisy(folder, 0.5 + number / 1000, number % 50)
    ranking = rank_sweep(tmp_path)
    assert [row.values["lora.rank"] for row in ranking.rows] == list(range(1, 201))
    assert all(row.tie for row in ranking.rows[1:])
    assert "tied with 199 others" in summary_lines(ranking)[-1]
