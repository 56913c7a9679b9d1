"""Metrics against a computation by hand."""

import math

import pytest
import torch

from danube_sweep.metrics import classification_metrics, references
from danube_sweep.schema import CausalHead, LMHead, PreferenceHead, SequenceHead, Target

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
    assert tuple(metrics) == SequenceHead.metrics


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
    assert found["prior_log_loss"] == pytest.approx(-(math.log(0.5) + 3 * math.log(0.25)) / 4)
    even = references(Target.one, torch.eye(3), HARD)
    assert even["prior_log_loss"] == pytest.approx(even["uniform_log_loss"]) == pytest.approx(math.log(3))


@pytest.mark.parametrize("head", [SequenceHead(), PreferenceHead(), CausalHead()])
def test_classifiers_have_the_same_columns(head: SequenceHead | PreferenceHead | CausalHead) -> None:
    assert head.metrics == ("log_loss", "accuracy", "macro_f1", "ece", "auroc")
    assert LMHead.metrics == ("log_loss", "perplexity")
