"""Metrics against a computation by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from danube_sweep.config.schema import Target
from danube_sweep.head.kinds.causal import CausalHead
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.head.kinds.preference import PreferenceHead
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.training import metrics as metrics_module
from danube_sweep.training.metrics import (
    _entities,
    answer_without_reading,
    area_under_curve,
    classification_metrics,
    multilabel_metrics,
    quadratic_kappa,
    references,
    regression_metrics,
    word_metrics,
)

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
HARD = torch.eye(3)[[0, 1, 1, 2]]


def test_metrics_are_those_computed_by_hand() -> None:
    metrics = classification_metrics(PROBABILITIES, HARD)
    assert metrics["log_loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.6, 0.3, 0.6))) / 4, rel=1e-6)
    assert metrics["accuracy"] == 0.75
    # Class by class: one hit and one false alarm; one hit and one miss; one hit.
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Four rows, two of them sharing the bin (.533, .6] with confidence .6: all right.
    gaps = [(1, abs(0.7 - 1)), (2, abs(0.6 - 1)), (1, abs(0.5 - 0))]
    assert metrics["ece"] == pytest.approx(sum(count * gap for count, gap in gaps) / 4, rel=1e-6)
    assert tuple(metrics) == SequenceHead().metrics


def test_the_calibration_error_has_fifteen_equal_bins() -> None:
    random = np.random.default_rng(0)
    probabilities_NC = random.dirichlet([1, 1, 1], size=300)
    labels_N = [random.choice(3, p=row) for row in probabilities_NC]  # else every bin errs to the same side
    confidence_N, right_N = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N

    def error(bins: int) -> float:
        bin_N = np.ceil(confidence_N * bins)
        groups = [bin_N == place for place in np.unique(bin_N)]
        return sum(abs(confidence_N[group].mean() - right_N[group].mean()) * group.mean() for group in groups)

    found = classification_metrics(torch.from_numpy(probabilities_NC).float(), torch.eye(3)[labels_N])["ece"]
    assert found == pytest.approx(error(15), rel=1e-4)
    assert all(abs(error(15) / error(bins) - 1) > 1e-3 for bins in (10, 14, 16, 20))


def test_log_loss_counts_soft_labels_by_their_shares() -> None:
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.5, 0.3]])
    wanted = -(0.5 * math.log(0.7) + 0.5 * math.log(0.2)) / 2
    wanted -= (0.2 * math.log(0.1) + 0.5 * math.log(0.6) + 0.3 * math.log(0.3)) / 2
    assert classification_metrics(PROBABILITIES[:2], soft)["log_loss"] == pytest.approx(wanted, rel=1e-6)


def test_a_certain_mistake_costs_much_but_not_everything() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert classification_metrics(certain, torch.eye(3)[[1]])["log_loss"] == pytest.approx(-math.log(1e-15))
    assert classification_metrics(certain, torch.eye(3)[[0]])["log_loss"] == 0


def test_a_nan_shows() -> None:
    broken = torch.tensor([[math.nan, 0.5, 0.5]])
    assert not math.isfinite(classification_metrics(broken, HARD[:1])["log_loss"])


def test_the_prior_is_the_training_parts_and_the_loss_the_validation_parts() -> None:
    train = torch.eye(3)[[0, 0, 1, 2]]
    found = references(Target.one, train, HARD)
    shares = [3 / 7, 2 / 7, 2 / 7]  # one more row of each class than there is
    wanted = np.mean([-math.log(shares[place]) for place in HARD.argmax(dim=1).tolist()])
    assert found["prior_log_loss"] == pytest.approx(wanted)
    even = references(Target.one, torch.eye(3), HARD)
    assert even["prior_log_loss"] == pytest.approx(even["uniform_log_loss"]) == pytest.approx(math.log(3))


@pytest.mark.parametrize("head", [SequenceHead(), PreferenceHead(), CausalHead()])
def test_classifiers_have_the_same_columns(head: SequenceHead | PreferenceHead | CausalHead) -> None:
    assert head.metrics == ("log_loss", "accuracy", "macro_f1", "ece", "auroc")
    assert LMHead().metrics == ("log_loss", "perplexity")


def test_the_area_under_the_curve_is_the_mean_over_classes_that_are_there() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.4], [0.6, 0.3], [0.5, 0.2]])
    labels = torch.tensor([[1, 0], [0, 0], [0, 0], [1, 0]])
    assert area_under_curve(scores, labels) == pytest.approx(0.75)  # of four pairs, .5 against .6 is the wrong one
    assert area_under_curve(scores, torch.zeros_like(labels)) == 0.5


def test_the_area_under_the_curve_is_sklearns_in_blocks_of_classes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    scores, labels = random.random((60, 7)).round(1), random.integers(0, 2, size=(60, 7))
    wanted = pytest.approx(roc_auc_score(labels, scores, average="macro"))
    assert area_under_curve(torch.from_numpy(scores), torch.from_numpy(labels)) == wanted
    monkeypatch.setattr(metrics_module, "RANKED_AT_ONCE", 130)  # two classes
    assert area_under_curve(torch.from_numpy(scores), torch.from_numpy(labels)) == wanted


def test_quadratic_kappa_is_sklearns_of_the_median_class() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), size=200)
    wanted = random.integers(0, 5, size=200)
    median = (probabilities.cumsum(axis=1) < 0.5).sum(axis=1)
    found = quadratic_kappa(torch.from_numpy(probabilities), torch.eye(5)[wanted])
    assert found == pytest.approx(cohen_kappa_score(median, wanted, weights="quadratic"), abs=1e-6)
    assert quadratic_kappa(torch.eye(3)[[1, 1]], torch.eye(3)[[1, 1]]) == 0


def test_errors_and_correlations_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(size=100)
    found = wanted + random.normal(size=100)
    metrics = regression_metrics(torch.from_numpy(found), torch.from_numpy(wanted))
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean((found - wanted) ** 2)))
    assert metrics["mse"] == pytest.approx(metrics["rmse"] ** 2)
    assert metrics["mae"] == pytest.approx(abs(found - wanted).mean())
    assert metrics["pearson"] == pytest.approx(np.corrcoef(found, wanted)[0, 1])
    constant = regression_metrics(torch.ones(4), torch.arange(4.0))
    assert constant["pearson"] == constant["spearman"] == 0


CLASSES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def words(text: str) -> np.ndarray:
    return np.array([CLASSES.index(name) for name in text.split()])


def test_an_entity_counts_when_its_type_and_both_ends_are_right() -> None:
    wanted = words("B-LOC I-LOC O B-PER B-PER I-PER O O I-LOC")
    found = words("B-LOC I-LOC O B-PER I-PER I-PER O O I-LOC")
    starts = np.zeros(9, dtype=bool)
    starts[[0, 8]] = True
    metrics = word_metrics(found, wanted, starts, CLASSES)
    # LOC 0-2, PER 3-4, PER 4-6, LOC 8-9 against LOC 0-2, PER 3-6, LOC 8-9.
    assert metrics["entity_precision"] == pytest.approx(2 / 3) and metrics["entity_recall"] == pytest.approx(2 / 4)
    assert metrics["entity_f1"] == pytest.approx(4 / 7)
    assert metrics["accuracy"] == pytest.approx(8 / 9)
    # Six words of each are marked, five of them alike.
    assert metrics["token_f1"] == pytest.approx(5 / 6) and metrics["token_f5"] == pytest.approx(5 / 6)


def test_entities_without_types_and_those_of_iobes_are_spans_too() -> None:
    once = np.array([True, *[False] * 4])
    assert _entities(np.array([0, 1, 1, 2, 0]), once, ["B", "I", "O"]) == {(0, 3, "B"), (4, 5, "B")}
    iobes = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    assert _entities(np.array([4, 4, 1, 3, 0]), once, iobes) == {(0, 1, "PER"), (1, 2, "PER"), (2, 4, "PER")}
    assert _entities(np.array([1, 1, 0]), once[:3], ["O", "PERSON"]) == {(0, 2, "PERSON")}


def test_an_entity_ends_with_its_text_and_where_its_type_changes() -> None:
    both = words("B-LOC I-LOC I-PER")
    apart = np.array([True, True, False])
    whole = word_metrics(both, both, np.array([True, False, False]), CLASSES)
    assert whole["entity_f1"] == 1
    # The second text's I-LOC is an entity of its own, so only the change of type is found alike.
    spans = _entities(both, apart, CLASSES), _entities(both, np.array([True, False, False]), CLASSES)
    assert spans == ({(0, 1, "LOC"), (1, 2, "LOC"), (2, 3, "PER")}, {(0, 2, "LOC"), (2, 3, "PER")})


def test_f5_counts_recall_most() -> None:
    wanted, starts = words("B-LOC B-LOC B-LOC B-LOC"), np.array([True] * 4)
    careful, eager = words("B-LOC O O O"), words("B-LOC B-LOC B-LOC B-PER")
    assert word_metrics(careful, wanted, starts, CLASSES)["token_f5"] == pytest.approx(26 * 0.25 / (25 + 0.25))
    assert word_metrics(eager, wanted, starts, CLASSES)["token_f5"] == pytest.approx(0.75)
    assert word_metrics(words("O O O O"), wanted, starts, CLASSES)["token_f5"] == 0


def test_several_classes_a_row_are_counted_one_by_one() -> None:
    probabilities = torch.tensor([[0.9, 0.8], [0.1, 0.6], [0.7, 0.2]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    metrics = multilabel_metrics(probabilities, labels)
    assert metrics["exact_match"] == pytest.approx(2 / 3) and metrics["micro_f1"] == pytest.approx(2 * 3 / (4 + 3))
    assert metrics["auroc"] == 1.0


def test_the_references_of_numbers_and_of_several_classes() -> None:
    train, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]])
    assert references(Target.number, train, labels) == {"prior_mse": 2.0}
    many = references(Target.many, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert many["prior_log_loss"] == pytest.approx(-(math.log(2 / 4) + math.log(3 / 4)) / 2)


def test_a_class_that_no_training_row_has_is_not_impossible() -> None:
    train = torch.eye(3)[[0] * 60 + [1] * 40]
    shares = answer_without_reading(Target.one, train)
    assert shares.tolist() == pytest.approx([61 / 103, 41 / 103, 1 / 103])
    assert references(Target.one, train, torch.eye(3)[[2]])["prior_log_loss"] == pytest.approx(math.log(103))


@pytest.mark.parametrize("target", Target)
def test_every_target_with_labels_has_references_and_one_without_is_refused(target: Target) -> None:
    labels = torch.eye(2)
    if target is Target.nothing:
        with pytest.raises(ValueError, match="target=nothing has no labels"):
            references(target, labels, labels)
    else:
        assert all(math.isfinite(value) for value in references(target, labels, labels).values())
