"""The intervals of the ranking, against files read again with numpy and scipy alone."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from ranking_oracle import Columns, oracle, probabilities
from rich.console import Console
from scipy import stats

from danube_sweep.report.collect import gather
from danube_sweep.report.in_terminal import answer_lines
from danube_sweep.report.page import page
from danube_sweep.results.comparison import Compared, half_widths
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_files import write
from danube_sweep.results.ranking_table import ranking_table, summary_lines
from danube_sweep.results.rows import winner
from danube_sweep.results.training_noise import resampled_variance, training_noise

GENERATOR = np.random.default_rng(11)
GROUPS = np.repeat(np.arange(30), np.arange(30) % 5 + 1) * 1000 + 7
"""A code for each of 90 validation rows, in 30 groups of one to five."""
SHARED = GENERATOR.normal(size=30)


def folder(sweep: Path, row: int, seed: int, state: str = "finished", **result: Any) -> Path:
    """A trial's folder; `result` are further fields of its result.json."""
    path = sweep / f"{len(list(sweep.glob('*'))) + 1:03d}_row-{row}_seed-{seed}"
    path.mkdir(parents=True)
    (path / "trial.json").write_text(json.dumps({"hash": path.name, "overrides": [f"row={row}", f"seed={seed}"]}))
    (path / "result.json").write_text(json.dumps({"state": state, **result}))
    return path


def predict(path: Path, groups: Any, ids: Sequence[str] | None = None, **columns: Any) -> None:
    names = list(ids or [f"row {number}" for number in range(len(groups))])
    parquet.write_table(pa.table({"id": names, "group": groups, **columns}), path / "predictions.parquet")


def clustered(size: float, seed: int) -> NDArray[np.float64]:
    """Noise that the rows of a group share for the most part."""
    own = np.random.default_rng(seed)
    return np.asarray(size * (own.normal(size=30)[np.unique(GROUPS, return_inverse=True)[1]] + own.normal(size=90) / 2))


def losses_of(sweep: Path, row: int, seed: int, mean: float, size: float = 0.2, state: str = "finished") -> Path:
    """A trial with losses around a mean, which the row's seeds share but for a level of their own."""
    losses = mean + clustered(size, row) + clustered(size / 4, 100 * row + seed)
    path = folder(sweep, row, seed, state, validation={"log_loss": float(losses.mean())})
    predict(path, GROUPS, loss=losses)
    return path


# ----------------------------------------------------------------------------------- from the files, by numpy alone


def log_loss(found: Columns, rows: Any) -> float:
    return float(found["loss"][rows].mean())


def accuracy(found: Columns, rows: Any) -> float:
    sure, classes = probabilities(found)
    return float(np.mean(np.array(classes)[sure[rows].argmax(axis=1)] == found["label"][rows]))


def kappa(found: Columns, rows: Any) -> float:
    """Cohen 1968 from the table of counts: 1 - sum of squared distances, seen over expected."""
    sure, classes = probabilities(found)
    said = np.minimum((sure[rows].cumsum(axis=1) < 0.5).sum(axis=1), len(classes) - 1)
    wanted = np.searchsorted(classes, found["label"][rows])
    seen = np.bincount(wanted * len(classes) + said, minlength=len(classes) ** 2).reshape(len(classes), -1)
    distance = np.square(np.subtract.outer(np.arange(len(classes)), np.arange(len(classes))))
    expected = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / seen.sum()
    return float(1 - (distance * seen).sum() / (distance * expected).sum())


def entity_f1(found: Columns, rows: Any) -> float:
    """Of exact spans: found, wanted and both, counted where each begins."""
    if "counts" not in found:
        sure, classes = probabilities(found)
        texts = np.array([name.rpartition(":")[0] for name in found["id"]])
        said, wanted = (_spans(names, texts) for names in (np.array(classes)[sure.argmax(axis=1)], found["label"]))
        counts = np.zeros((len(texts), 3))
        for column, spans in enumerate((said, wanted, said & wanted)):
            for begun, _ in spans:
                counts[begun, column] += 1
        found["counts"] = counts
    said, wanted, both = found["counts"][rows].sum(axis=0)
    return float(2 * both / (said + wanted)) if said + wanted else 0.0


def _spans(names: Any, texts: Any) -> set[tuple[int, int]]:
    """First and last place of each entity of the one type: B- begins, I- goes on."""
    spans, begun = set(), None
    for place, name in enumerate([*names, "O"]):
        new_text = place == len(names) or (place > 0 and texts[place] != texts[place - 1])
        if begun is not None and (new_text or name != "I-X"):
            spans.add((begun, place))
            begun = None
        if name == "B-X" or (name == "I-X" and begun is None):
            begun = place
    return spans


def classified(
    sweep: Path, metric: Any, name: str, classes: list[str], ids: list[str] | None = None
) -> list[list[Path]]:
    """Four rows of three seeds, the more seldom right the later; the metric of each by `metric`."""
    labels = np.random.default_rng(0).integers(0, len(classes), 90)
    rows = []
    for row in range(4):
        paths = []
        for seed in range(3):
            own = np.random.default_rng(1000 * row + seed)
            logits = own.normal(size=(90, len(classes)))
            logits[np.arange(90), labels] += (
                1.6 - (0.0, 0.1, 2.0, 2.2)[row] + 0.8 * SHARED[np.unique(GROUPS, return_inverse=True)[1]]
            )
            sure = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            path = folder(sweep, row, seed)
            answers = {f"probability_{one}": sure[:, place] for place, one in enumerate(classes)}
            predict(path, GROUPS, ids, loss=-np.log(sure[np.arange(90), labels]), label=[classes[k] for k in labels],
                    **answers)  # fmt: skip
            paths.append(path)
            found = {column: np.array(values) for column, values in
                     parquet.read_table(path / "predictions.parquet").to_pydict().items()}  # fmt: skip
            result = {"state": "finished", "validation": {name: metric(found, np.arange(90))}}
            (path / "result.json").write_text(json.dumps(result))
        rows.append(paths)
    return rows


WORDS = [f"{code}:{place}" for code, count in zip(*np.unique(GROUPS, return_counts=True), strict=True)
         for place in range(count)]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "goal", "metric", "classes", "ids"),
    [
        ("log_loss", "minimize", log_loss, ["a", "b", "c"], None),
        ("accuracy", "maximize", accuracy, ["a", "b", "c"], None),
        ("qwk", "maximize", kappa, ["0", "1", "2", "3"], None),
        ("entity_f1", "maximize", entity_f1, ["O", "B-X", "I-X"], WORDS),
    ],
)
def test_every_figure_is_that_of_the_files_read_again(
    tmp_path: Path, name: str, goal: str, metric: Any, classes: list[str], ids: list[str] | None
) -> None:
    rows = classified(tmp_path, metric, name, classes, ids)
    ranking = rank_sweep(tmp_path, [(f"validation/{name}", goal)])
    order = [int(row.values["row"]) for row in ranking.rows]
    wanted = oracle([rows[row] for row in order], metric)
    best, *others = ranking.rows
    assert ranking.noise is not None and ranking.noise.sd == pytest.approx(wanted.sd, rel=0.02)
    assert [row.difference for row in others] == pytest.approx(wanted.differences)
    halves = [(row.interval[1] - row.interval[0]) / 2 for row in others if row.interval]
    # A 95 % quantile of tails as wide as two seeds give, of a thousand draws here, is known to a tenth.
    assert halves == pytest.approx(wanted.halves, rel=0.2)
    assert best.own_interval is not None
    assert (best.own_interval[1] - best.own_interval[0]) / 2 == pytest.approx(wanted.own, rel=0.1)
    assert [row.tie for row in others] == [
        abs(row.difference or 0) <= half for row, half in zip(others, halves, strict=True)
    ]
    assert "30 groups (prompts, texts, documents) of 90 validation rows; and training noise: sd" in (
        ranking.covers or ""
    )


def test_every_view_has_the_same_interval(tmp_path: Path) -> None:
    for row in range(3):
        for seed in range(2):
            losses_of(tmp_path, row, seed, 0.5 + row / 20)
    ranking = rank_sweep(tmp_path)
    write(ranking, tmp_path)
    report = gather(tmp_path)
    other, best = ranking.rows[1], ranking.rows[0]
    assert other.interval is not None and best.own_interval is not None
    assert report.ranking.rows == ranking.rows
    low, high = (f"{end:+.4f}" for end in other.interval)
    between = "{:.4f} .. {:.4f}".format(*best.own_interval)
    page_, file = page(report), (tmp_path / "ranking.md").read_text()
    assert f"{low} .. {high}" in page_ and f"{low} .. {high}" in file
    assert f"95 % {between}" in summary_lines(ranking)[-1] and f"95 % {between}" in answer_lines(report)[1]
    assert between.replace("..", "to") in page_ and f"95 % {between}" in file
    with (tmp_path / "ranking.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert float(records[1]["difference_low"]) == other.interval[0]
    assert float(records[0]["validation/log_loss low"]) == best.own_interval[0]


# --------------------------------------------------------------------------------------------------- groups


def test_rows_of_a_group_are_drawn_together(tmp_path: Path) -> None:
    """Each row four times over tells no more than once; drawn one by one it would look twice as sure."""
    halves = []
    for name, times, grouped in (("once", 1, True), ("four", 4, True), ("alone", 4, False)):
        for row in range(2):
            losses = np.repeat(0.5 + 0.01 * row + np.random.default_rng(row).normal(size=60), times)
            path = folder(tmp_path / name, row, 0, validation={"log_loss": float(losses.mean())})
            predict(path, np.repeat(np.arange(60), times) if grouped else np.arange(60 * times), loss=losses)
        interval = rank_sweep(tmp_path / name).rows[0].own_interval
        assert interval is not None
        halves.append((interval[1] - interval[0]) / 2)
    assert halves[1] == pytest.approx(halves[0], rel=0.05)
    assert halves[0] / halves[2] == pytest.approx(2.0, rel=0.1)


def test_one_group_alone_has_no_interval(tmp_path: Path) -> None:
    for row in range(2):
        path = folder(tmp_path, row, 0, validation={"log_loss": 0.5 + row})
        predict(path, np.zeros(9, dtype=int), loss=np.full(9, 0.5 + row))
    ranking = rank_sweep(tmp_path)
    assert [row.interval for row in ranking.rows] == [None, None]
    assert ranking.notes == ["no intervals: all validation rows are of one group (prompt, text, document)"]


@pytest.mark.parametrize("name", ["auroc", "ece", "spearman"])
def test_a_metric_that_is_no_sum_has_no_interval_and_says_so(tmp_path: Path, name: str) -> None:
    for row in range(2):
        predict(folder(tmp_path, row, 0, validation={name: 0.5 + row}), GROUPS, loss=np.ones(90))
    ranking = rank_sweep(tmp_path, [(f"validation/{name}", "maximize")])
    assert [row.interval for row in ranking.rows] == [None, None]
    assert ranking.notes == [f"no intervals: {name} is not made of sums over validation rows that could be resampled"]


# ------------------------------------------------------------------------------------------------ survivors


def test_a_row_that_lost_its_unlucky_seeds_is_not_crowned(tmp_path: Path) -> None:
    for seed, level in enumerate((0.45, 0.5, 0.55)):
        losses_of(tmp_path, 1, seed, level)
        losses_of(tmp_path, 2, seed, level - 0.03, state="failed" if seed else "finished")
    ranking = rank_sweep(tmp_path)
    survivor, whole = ranking.rows
    assert (survivor.values["row"], survivor.rank, survivor.lost) == (2, 1, "2 failed")
    assert winner(ranking) is whole and whole.difference is None
    assert survivor.interval is None and not survivor.tie
    # Over the one seed that both have, not the lucky one against the mean of three.
    assert survivor.difference == pytest.approx(survivor.cells[0, None] - whole.cells[0, None])
    assert "no interval for 1 row: survivors, as its other trials failed" in ranking.notes
    last = summary_lines(ranking)[-1]
    assert "1 row with fewer trials ranked above it" in last and "by more than" not in last


def test_a_row_does_not_gain_by_a_bad_seed_that_was_pruned(tmp_path: Path) -> None:
    """Rows: one finished seed and a pruned bad one; both pruned; one finished and one pruned, both good."""
    for row, levels in enumerate(((0.40, 0.90), (0.50, 0.52), (0.45, 0.47))):
        for seed, level in enumerate(levels):
            losses_of(tmp_path, row, seed, level, state="pruned" if seed or row == 1 else "finished")
    ranking = rank_sweep(tmp_path)
    assert [(row.values["row"], row.lost, row.early) for row in ranking.rows] == [(2, "", 1), (1, "", 2), (0, "", 1)]
    assert winner(ranking) is ranking.rows[0]  # nothing above the answer
    assert [row.mean for row in ranking.rows] == [fmean(row.cells.values()) for row in ranking.rows]
    assert all(len(row.cells) == 2 for row in ranking.rows)
    assert "nothing was trained to its end with a second seed" in (ranking.covers or "")
    last = summary_lines(ranking)[-1]
    assert last.startswith("best: row=2") and "1 of its 2 trials ended early" in last and "above it" not in last


def test_without_a_whole_row_the_best_says_that_it_lost_trials(tmp_path: Path) -> None:
    for row in (1, 2):
        losses_of(tmp_path, row, 0, 0.4 + row / 10)
        folder(tmp_path, row, 1, "oom", error="OutOfMemory: x")
    ranking = rank_sweep(tmp_path)
    assert all(row.interval is None for row in ranking.rows)
    assert any("the best row" in note and "survivors" in note for note in ranking.notes)
    assert summary_lines(ranking)[-1].endswith("it has lost trials: 1 oom")


def test_rows_are_compared_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    for seed, level in enumerate((0.4, 0.5, 0.6)):
        losses_of(tmp_path, 1, seed, level)
    losses_of(tmp_path, 2, 2, 0.7)
    losses_of(tmp_path, 3, 9, 0.9)
    ranking = rank_sweep(tmp_path)
    best, other, apart = ranking.rows
    assert other.difference == pytest.approx(other.cells[2, None] - best.cells[2, None])
    assert other.interval is not None and apart.interval is None
    assert ranking.notes == [
        "no interval for 1 row: no seed and fold in common with the best row",
        "1 row has other seeds or folds than the best row: its difference is over those that both have",
    ]


# ------------------------------------------------------------------------------------- training noise, many rows


def test_without_a_second_seed_the_spread_of_the_rows_stands_in_for_the_noise(tmp_path: Path) -> None:
    """Seven rows alike and one far off; the best one's own interval and the prior's hold validation rows alone."""
    paths = [losses_of(tmp_path, row, 0, 0.5 + 0.002 * row + (2.0 if row == 7 else 0.0)) for row in range(8)]
    ranking = rank_sweep(tmp_path)
    assert ranking.noise is None
    wanted = oracle([[paths[row.values["row"]]] for row in ranking.rows], log_loss)
    found = [(row.interval[1] - row.interval[0]) / 2 for row in ranking.rows if row.interval]
    assert found == pytest.approx(wanted.halves, rel=0.2)
    own = ranking.rows[0].own_interval
    assert own is not None and (own[1] - own[0]) / 2 == pytest.approx(wanted.own, rel=0.1)
    assert [row.tie for row in ranking.rows] == [False, *[True] * 6, False]
    said = (
        "training noise is unknown, as nothing was trained to its end with a second seed: "
        "for differences the spread of the 8 rows"
    )
    assert said in (ranking.covers or "")
    assert summary_lines(ranking)[-1].endswith("tied with 6 others (95 % interval of the difference holds 0)")


def test_of_two_single_trials_none_is_told_from_the_other(tmp_path: Path) -> None:
    losses_of(tmp_path, 1, 0, 0.2)
    losses_of(tmp_path, 2, 0, 2.2)
    assert [row.tie for row in rank_sweep(tmp_path).rows] == [False, True]


def test_noise_is_that_of_most_rows_and_not_of_one_that_diverged() -> None:
    quiet = [{(seed, None): 0.5 + 0.01 * sign for seed, sign in enumerate((-1, 0, 1))} for _ in range(4)]
    wild = {(seed, None): 9.0 * seed for seed in range(3)}
    found = training_noise([*quiet, wild])
    assert found is not None and (found.over, found.rows) == ("seeds", 5)
    # A median of five equal variances: over the median of chi-squared with 2 degrees of freedom by its mean.
    assert found.sd == pytest.approx(0.01 / (stats.chi2.median(2) / 2) ** 0.5, rel=0.01)
    assert training_noise([{(0, None): 0.5}, {(0, None): 0.7}]) is None


def test_noise_of_better_rows_counts_where_the_others_learned_nothing() -> None:
    learned = [{(seed, None): 0.5 + 0.1 * sign for seed, sign in enumerate((-1, 0, 1))} for _ in range(4)]
    stuck = [{(seed, None): 1.1 + 0.001 * sign for seed, sign in enumerate((-1, 0, 1))} for _ in range(5)]
    found = training_noise([*learned, *stuck])
    assert found is not None and found.sd == pytest.approx(0.1 / (stats.chi2.median(2) / 2) ** 0.5, rel=0.01)


def test_a_row_that_diverged_in_some_folds_does_not_give_its_noise_to_the_others() -> None:
    draw = np.random.default_rng(5)
    fold_F = draw.normal(scale=0.1, size=5)
    quiet_RF = 0.5 + fold_F + draw.normal(scale=0.02, size=(400, 5))
    wild_F = 3 + fold_F + draw.normal(scale=1.0, size=5)
    found = [
        training_noise([{(0, fold): float(value) for fold, value in enumerate(row)} for row in [*rows, wild_F]])
        for rows in quiet_RF.reshape(80, 5, 5)
    ]
    assert all(one is not None and one.over == "folds" for one in found)
    assert np.median([one.sd for one in found if one is not None]) == pytest.approx(0.02, rel=0.15)


def test_only_repeats_of_the_same_kind_are_taken_off_the_noise() -> None:
    away = {cell: np.array([sign, -sign]) for cell, sign in {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 2.0}.items()}
    folds = [{cell: away[cell] for cell in ((0, 0), (0, 1))}, {cell: 2 * away[cell] for cell in ((0, 0), (0, 1))}]
    assert resampled_variance(folds, "folds") > 0
    assert resampled_variance(folds, "seeds") == 0  # a variance between folds says nothing about that of seeds
    seeds = [{cell: away[cell] for cell in ((0, 0), (1, 0))}]
    assert resampled_variance(seeds, "seeds") == pytest.approx(np.var([1, 2], ddof=1))


def test_a_difference_needs_to_be_larger_where_more_rows_are_compared() -> None:
    generator = np.random.default_rng(3)
    away_BR = generator.normal(size=(2000, 30))

    def half(rows: int) -> float:
        return half_widths([Compared(0.0, away_BR[:, row] - away_BR[:, -1], 1) for row in range(rows)], None)[0]

    # The range of 2 and of 21 independent normal numbers (Tukey), each difference with a deviation of sqrt 2.
    assert half(1) == pytest.approx(stats.studentized_range.ppf(0.95, 2, np.inf), rel=0.05)
    assert half(20) == pytest.approx(stats.studentized_range.ppf(0.95, 21, 1e6), rel=0.05)


def test_of_equal_rows_one_in_twenty_sweeps_tells_two_apart() -> None:
    """Simulated sweeps of 8 equal rows with 3 seeds: known noise of training and of 40 groups."""
    generator = np.random.default_rng(5)
    counts_BG = generator.multinomial(40, np.full(40, 1 / 40), size=1000) / 40
    told = powerful = 0
    for _ in range(150):
        groups_RG = generator.normal(scale=0.06, size=(8, 40))
        cells_RS = generator.normal(scale=0.02, size=(8, 3)) + groups_RG.mean(axis=1, keepdims=True)
        for better in (0.0, 0.1):
            shifted_RS = cells_RS - better * (np.arange(8) == 0)[:, None]
            order = shifted_RS.mean(axis=1).argsort()
            noise = training_noise(
                [{(seed, None): value for seed, value in enumerate(shifted_RS[row])} for row in order]
            )
            away_BR = counts_BG @ (groups_RG - groups_RG.mean(axis=1, keepdims=True)).T
            apart_R = shifted_RS.mean(axis=1) - shifted_RS[order[0]].mean()
            compared = [Compared(float(apart_R[row]), away_BR[:, row] - away_BR[:, order[0]], 3) for row in order[1:]]
            clear = [one.difference > half for one, half in zip(compared, half_widths(compared, noise), strict=True)]
            told += any(clear) and not better
            powerful += all(clear) and bool(better) and order[0] == 0
    assert told / 150 <= 0.08  # 5 % and its own chance
    assert powerful / 150 >= 0.8


# ------------------------------------------------------------------------------------------- nothing learned


def guessing(sweep: Path, row: int, sure: float, prior: Sequence[float], **result: Any) -> None:
    """A trial that gives the label `sure` more than the prior does, on rows of two classes, one as common as three."""
    labels = np.arange(90) % 4 == 0
    chance = np.clip(np.where(labels, prior[1] + sure, prior[1] - sure), 0.01, 0.99) + clustered(0.01, row)
    losses = -np.log(np.where(labels, chance, 1 - chance))
    path = folder(sweep, row, 0, validation={"log_loss": float(losses.mean())}, prior=list(prior), **result)
    predict(path, GROUPS, loss=losses, label=np.where(labels, "b", "a"), probability_a=1 - chance, probability_b=chance)


def test_a_best_no_better_than_the_class_prior_is_the_first_line(tmp_path: Path) -> None:
    prior = (0.75, 0.25)
    references = {"prior_log_loss": float(-(np.log(0.75) * 67 + np.log(0.25) * 23) / 90)}
    ended = {"train_loss": 0.56, "steps": 12, "references": references}
    for row in range(2):
        guessing(tmp_path / "nothing", row, 0.0, prior, **ended)
        guessing(tmp_path / "something", row, 0.1 * (row + 1), prior, **ended)
    nothing, something = (rank_sweep(tmp_path / name) for name in ("nothing", "something"))
    assert something.prior is not None and not something.prior.nothing_learned
    assert something.prior.value == pytest.approx(references["prior_log_loss"])
    assert nothing.prior is not None and nothing.prior.nothing_learned and nothing.prior.half is not None
    first = summary_lines(nothing)[0]
    assert first.startswith("nothing was learned: validation/log_loss 0.5")
    assert f"the class prior, {references['prior_log_loss']:.4f}, by more than chance" in first
    assert "its last training loss is 0.560, the class prior's 0.568: the learning rate may be too low" in first
    assert "12 steps may be too few" in first
    assert not summary_lines(something)[0].startswith("nothing")
    report = gather(tmp_path / "nothing")
    assert report.answer.nothing_learned == [first] and answer_lines(report)[0] == first
    assert "nothing was learned" in page(report).partition('class="chosen"')[0]
    assert summary_lines(nothing)[-1].startswith("no answer, as nothing was learned; first: ")
    console = Console(width=100, file=(printed := io.StringIO()))
    console.print(ranking_table(nothing, 100))
    assert printed.getvalue().startswith("nothing was learned: ")


@pytest.mark.parametrize(("loss", "reason"), [(0.9, "may be too high"), (0.1, "learned its training rows by heart")])
def test_the_training_loss_tells_the_likely_reason(tmp_path: Path, loss: float, reason: str) -> None:
    stated = {"references": {"prior_log_loss": 0.57}, "train_loss": loss, "steps": 40}
    guessing(tmp_path, 1, -0.05, (0.75, 0.25), **stated)
    (found,) = [line for line in summary_lines(rank_sweep(tmp_path)) if line.startswith("nothing was learned")]
    assert reason in found
    (run,) = tmp_path.glob("*/")
    (run / "metrics.csv").write_text(
        "part,loss\n" + "train,9\n" * 6 + f"train,{loss}\ntrain,{loss + 0.02}\nvalidation,\n"
    )
    (found,) = [line for line in summary_lines(rank_sweep(tmp_path)) if line.startswith("nothing was learned")]
    assert f"its last training loss is {loss + 0.01:.3f}" in found and reason in found  # of a quarter of the steps
    (run / "metrics.csv").write_text("part,loss\ntrain,1e-\n")  # damaged: that of the result
    (found,) = [line for line in summary_lines(rank_sweep(tmp_path)) if line.startswith("nothing was learned")]
    assert f"its last training loss is {loss:.3f}" in found


def test_a_gain_that_few_rows_cannot_tell_from_chance_is_said_so(tmp_path: Path) -> None:
    stated = {"references": {"prior_log_loss": 0.57}, "train_loss": 0.1, "steps": 40}
    guessing(tmp_path, 1, 0.012, (0.75, 0.25), **stated)
    (found,) = [line for line in summary_lines(rank_sweep(tmp_path)) if line.startswith("nothing was learned")]
    assert "it is better on these rows, which may be too few to tell: " in found and "by heart" not in found


def test_labels_that_are_shares_are_held_against_the_stated_prior(tmp_path: Path) -> None:
    """The file has the likeliest class alone, so the prior of shares cannot be computed from it."""
    guessing(tmp_path, 1, 0.0, (0.75, 0.25), references={"prior_log_loss": 0.9}, train_loss=0.9, steps=3)
    ranking = rank_sweep(tmp_path)
    assert ranking.prior is not None and ranking.prior.value == 0.9
    assert ranking.prior.half is not None and not ranking.prior.nothing_learned
