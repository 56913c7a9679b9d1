"""Rules for labels: the metrics are scikit-learn's, the rule is the best one of a search, and its worth is honest."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import multinomial
from sklearn.dummy import DummyClassifier
from sklearn.metrics import cohen_kappa_score, f1_score, fbeta_score, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

from danube_sweep.config.schema import Target
from danube_sweep.errors import ConfigError
from danube_sweep.results.decisions.counts import Metric, Truth, metric_from, metric_of, parts_of, score
from danube_sweep.results.decisions.fit_rules import fit
from danube_sweep.results.decisions.judge_rules import half_of, judged_from, plain, rule_of, wanted_metric, worth_of
from danube_sweep.results.decisions.rules import Biases, Cuts, Outside, Thresholds, described, rule_from
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import Answered

MACRO, MICRO, QWK, F5 = Metric("macro_f"), Metric("micro_f"), Metric("qwk"), Metric("token_f", 5.0)


def drawn(rows: int, classes: int, seed: int = 0, skew: float = 1.0) -> tuple[Any, Any]:
    """Probabilities, and labels drawn from them; the first class is the commonest."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)) + np.linspace(skew, -skew, classes)
    sure = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return sure, np.array([random.choice(classes, p=one) for one in sure])


@pytest.mark.parametrize("beta", [0.5, 1.0, 5.0])
def test_metrics_are_those_of_scikit_learn(beta: float) -> None:
    sure, wanted = drawn(200, 4)
    found, many, there = sure.argmax(axis=1), sure > 0.3, np.random.default_rng(1).random((200, 4)) > 0.7
    weights = np.random.default_rng(2).integers(0, 4, 200).astype(float)
    for some in (None, weights):
        assert score(Metric("macro_f", beta), found, Truth(wanted, 4), some) == pytest.approx(
            fbeta_score(wanted, found, beta=beta, average="macro", sample_weight=some))  # fmt: skip
        assert score(QWK, found, Truth(wanted, 4), some) == pytest.approx(
            cohen_kappa_score(wanted, found, weights="quadratic", sample_weight=some))  # fmt: skip
        assert score(Metric("token_f", beta), found, Truth(wanted, 4, outside=0), some) == pytest.approx(
            fbeta_score(wanted, found, beta=beta, average="micro", labels=[1, 2, 3], sample_weight=some))  # fmt: skip
        for average in ("macro", "micro"):
            assert score(Metric(f"{average}_f", beta), many, Truth(there, 4), some) == pytest.approx(
                fbeta_score(there, many, beta=beta, average=average, sample_weight=some))  # fmt: skip


def test_a_metric_of_sums_is_that_of_its_rows() -> None:
    sure, wanted = drawn(80, 4)
    there, random = np.random.default_rng(1).random((80, 4)) > 0.7, np.random.default_rng(2)
    for weights in (np.ones(80), random.integers(0, 3, 80).astype(float), (np.arange(80) < 3).astype(float)):
        for metric, found, truth in (
            (Metric("macro_f", 2), sure.argmax(axis=1), Truth(wanted, 4)),
            (QWK, sure.argmax(axis=1), Truth(wanted, 4)),
            (F5, sure.argmax(axis=1), Truth(wanted, 4, outside=0)),
            (MACRO, sure > 0.3, Truth(there, 4)),
            (MICRO, sure > 0.3, Truth(there, 4)),
        ):
            sums = weights @ parts_of(metric, found, truth)
            own = metric_of(metric, sums, np.asarray(weights.sum()), many=found.ndim == 2)
            assert float(own) == pytest.approx(score(metric, found, truth, weights))


def test_the_interval_is_that_of_resampled_groups_as_wide_as_few_of_them_make_it(tmp_path: Path) -> None:
    sure, wanted = drawn(60, 3, skew=1.5)
    groups = np.arange(60) // 12
    judged = judged_from(
        predictions.read(file_of(tmp_path, Target.one, ["a", "b", "c"], np.eye(3)[wanted], sure, groups)),
        Target.one, "it")  # fmt: skip
    before, after = plain(judged), (sure * [0.5, 1, 2]).argmax(axis=1)

    def apart(times_G: Any) -> float:
        said = [
            f1_score(wanted, one, average="macro", sample_weight=times_G[groups], zero_division=np.nan)
            for one in (after, before)
        ]
        return float(said[0] - said[1])

    drawn_BG = [np.array(one) for one in product(range(6), repeat=5) if sum(one) == 5]  # each way to draw five of five
    away_B = np.abs(np.array([apart(one) for one in drawn_BG]) - apart(np.ones(5)))
    order_B, shares_B = np.argsort(away_B), multinomial.pmf(drawn_BG, 5, np.full(5, 0.2))
    narrow = away_B[order_B][np.searchsorted(shares_B[order_B].cumsum(), 0.95)]
    assert half_of(judged, MACRO, before, after) == pytest.approx(narrow * np.sqrt(5 / 4), rel=0.06)


def test_one_threshold_is_as_good_as_scikit_learns_search() -> None:
    sure, wanted = drawn(300, 2, skew=0.8)
    features = np.log(sure[:, 1:] / sure[:, :1])

    class Given(DummyClassifier):
        """Answers with the probabilities that are given."""

        def predict_proba(self, X: Any) -> Any:
            return np.concatenate([1 / (1 + np.exp(X)), 1 / (1 + np.exp(-X))], axis=1)

    tuned = TunedThresholdClassifierCV(
        Given().fit(features, wanted), scoring=make_scorer(f1_score, average="macro"), thresholds=150, cv="prefit",
        refit=False).fit(features, wanted)  # fmt: skip
    own = score(MACRO, fit(MACRO, sure, Truth(wanted, 2), Biases).decide(sure), Truth(wanted, 2))
    assert own >= tuned.best_score_ - 1e-9
    assert own == pytest.approx(tuned.best_score_, abs=1e-2)  # its thresholds stand on a grid


def test_each_class_gets_the_threshold_of_a_search_over_all() -> None:
    random = np.random.default_rng(3)
    there = random.random((30, 3)) > [0.5, 0.8, 0.95]
    sure = np.clip(random.random((30, 3)) * 0.5 + there * random.random((30, 3)) * 0.5, 0, 1)
    rule = fit(MACRO, sure, Truth(there, 3), Thresholds)
    best = np.mean([max(f1_score(there[:, c], sure[:, c] >= one, zero_division=0) for one in sure[:, c])
                    for c in range(3)])  # fmt: skip
    assert score(MACRO, rule.decide(sure), Truth(there, 3)) == pytest.approx(best)
    micro = score(MICRO, fit(MICRO, sure, Truth(there, 3), Thresholds).decide(sure), Truth(there, 3))
    grids = [np.quantile(sure[:, c], np.linspace(0, 1, 5)) for c in range(3)]
    assert micro >= max(f1_score(there, sure >= np.array(one), average="micro") for one in product(*grids)) - 1e-9


def test_biases_and_cuts_are_as_good_as_a_search_over_a_grid() -> None:
    sure, wanted = drawn(60, 3, skew=1.2)
    rule = fit(MACRO, sure, Truth(wanted, 3), Biases)
    searched = max(
        f1_score(wanted, (np.log(sure) + np.array([0, one, two])).argmax(axis=1), average="macro")
        for one, two in product(np.linspace(-1, 3, 11), repeat=2)
    )
    assert score(MACRO, rule.decide(sure), Truth(wanted, 3)) >= searched - 5e-3
    scores = sure @ np.arange(3)
    cuts = fit(QWK, sure, Truth(wanted, 3), Cuts)
    searched = max(
        cohen_kappa_score(wanted, np.digitize(scores, [low, high]), weights="quadratic")
        for low, high in product(np.linspace(0.05, 1.95, 15), repeat=2) if low <= high
    )  # fmt: skip
    assert score(QWK, cuts.decide(sure), Truth(wanted, 3)) >= searched - 1e-9


def test_words_have_the_threshold_of_o_that_a_search_over_all_finds() -> None:
    sure, wanted = drawn(70, 4, skew=1.0)
    rule = fit(F5, sure, Truth(wanted, 4, outside=0), Outside)
    assert isinstance(rule, Outside) and rule.place == 0

    def by_hand(threshold: float) -> float:
        found = np.where(sure[:, 0] >= threshold, 0, 1 + sure[:, 1:].argmax(axis=1))
        return float(fbeta_score(wanted, found, beta=5, average="micro", labels=[1, 2, 3]))

    assert by_hand(rule.numbers[0]) == pytest.approx(max(map(by_hand, [*sure[:, 0], 2.0])))


def test_a_rule_is_read_back_as_it_was_and_nothing_else_is_read() -> None:
    for rule in (Biases([0.0, 1.5]), Thresholds([0.2, 0.7]), Cuts([0.5, 1.5]), Outside([0.9], 2)):
        assert rule_from(described(rule)) == rule
    for wrong in (
        {"kind": "cuts", "numbers": [2, 1]},
        {"kind": "new", "numbers": [1]},
        {"kind": "biases"},
        {"kind": "thresholds", "numbers": [float("nan")]},
        {"kind": "outside", "numbers": [1, 2], "place": 0},
    ):
        with pytest.raises((ValueError, KeyError)):
            rule_from(wrong)


def file_of(folder: Path, target: Target, classes: list[str], labels: Any, answers: Any, groups: Any = None) -> Path:
    file, rows = folder / "predictions.parquet", len(answers)
    answered = Answered([str(k) for k in range(rows)], np.ones(rows), labels, np.ones(rows), answers, groups)
    predictions.write(file, target, classes, answered)
    return file


def test_a_rule_gains_on_unseen_rows_where_there_is_something_to_gain_and_else_nothing(tmp_path: Path) -> None:
    sure, wanted = drawn(1500, 3, skew=1.5)
    file = file_of(tmp_path, Target.one, ["a", "b", "c"], np.eye(3)[wanted], sure)
    judged = judged_from(predictions.read(file), Target.one, "it")
    found = worth_of(judged, MACRO)
    assert found.before == pytest.approx(f1_score(wanted, sure.argmax(axis=1), average="macro"))
    assert found.after - found.half > found.before
    own = score(MACRO, rule_of(judged, MACRO).decide(sure), judged.truth)
    assert found.after < own  # on the rows that chose it, a rule looks better
    noise = np.random.default_rng(5).dirichlet(np.ones(3), 60)
    labels = np.random.default_rng(6).integers(0, 3, 60)
    file = file_of(tmp_path, Target.one, ["a", "b", "c"], np.eye(3)[labels], noise)
    lost = worth_of(judged_from(predictions.read(file), Target.one, "it"), MACRO)
    assert lost.after - lost.half < lost.before


def test_grades_from_numbers_and_from_ordered_classes(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    grades = random.integers(2, 6, 400)
    numbers = 0.4 * (grades - 3.5) + 3.5 + 0.2 * random.normal(size=400)  # a regression answers near the middle
    file = file_of(tmp_path, Target.number, ["n"], grades[:, None].astype(float), numbers[:, None])
    judged = judged_from(predictions.read(file), Target.number, "it")
    assert judged.classes == ["2", "3", "4", "5"]
    assert (plain(judged) + 2 == np.clip(np.round(numbers), 2, 5)).all()
    found = worth_of(judged, QWK)
    assert found.before == pytest.approx(cohen_kappa_score(grades, np.round(numbers), weights="quadratic"))
    assert found.after > found.before + 0.1
    file = file_of(tmp_path, Target.number, ["n"], grades[:, None] / 3, numbers[:, None])
    with pytest.raises(ConfigError, match="grades are 2 to 50 whole numbers"):
        judged_from(predictions.read(file), Target.number, "it")


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_for_grades_from_10_is_that_for_grades_from_0_moved_by_10(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    grades = np.concatenate([np.arange(6), random.choice(6, 54, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])])
    numbers = grades + random.normal(size=60)
    found = []
    for lowest in (0, 10):
        labels, answers = (grades + lowest)[:, None].astype(float), (numbers + lowest)[:, None]
        judged = judged_from(
            predictions.read(file_of(tmp_path, Target.number, ["n"], labels, answers)), Target.number, "it"
        )
        found.append((np.array(rule_of(judged, QWK).numbers) - lowest, worth_of(judged, QWK)))
    assert found[1][0] == pytest.approx(found[0][0])
    assert vars(found[1][1]) == pytest.approx(vars(found[0][1]))


def test_names_of_metrics_and_those_that_fit_a_head() -> None:
    assert metric_from("macro_f1") == MACRO and metric_from("token_f0.5") == Metric("token_f", 0.5)
    assert [metric_from(name) for name in ("accuracy", "macro_f", "macro_f0", "f1", "macro_f1000")] == [None] * 5
    assert wanted_metric(Target.words, None).name == "token_f5" and wanted_metric(Target.ordered, "macro_f2").beta == 2
    for target, name in ((Target.one, "qwk"), (Target.number, "macro_f1"), (Target.words, "accuracy")):
        with pytest.raises(ConfigError, match=f"--metric {name}: the answers of this head are decided for "):
            wanted_metric(target, name)
    with pytest.raises(ConfigError, match="head=lm decides nothing"):
        wanted_metric(Target.nothing, None)


def test_words_without_groups_are_grouped_by_the_text_in_their_ids(tmp_path: Path) -> None:
    sure, wanted = drawn(30, 3)
    ids = [f"text {k // 10}:{k % 10}" for k in range(30)]
    answered = Answered(ids, np.ones(30), wanted[:, None], np.ones(30), sure)
    predictions.write(tmp_path / "words", Target.words, ["O", "B-a", "I-a"], answered)
    judged = judged_from(predictions.read(tmp_path / "words"), Target.words, "it")
    assert judged.grouped and (judged.groups_N == np.arange(30) // 10).all()
    predictions.write(
        tmp_path / "rows", Target.one, ["O", "B-a", "I-a"], replace(answered, labels_NC=np.eye(3)[wanted])
    )
    assert not judged_from(predictions.read(tmp_path / "rows"), Target.one, "it").grouped


def test_rows_of_one_group_choose_and_judge_together(tmp_path: Path) -> None:
    sure, wanted = drawn(40, 3)
    groups = np.arange(40) // 14
    file = file_of(tmp_path, Target.one, ["a", "b", "c"], np.eye(3)[wanted], sure, groups)
    with pytest.raises(ConfigError, match="judged on 5 parts of the rows, and there are 3 groups"):
        worth_of(judged_from(predictions.read(file), Target.one, "it"), MACRO)
