"""Metrics from sums over examples: those of the evaluation, on all rows and on rows drawn again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from danube_sweep.config.schema import Target
from danube_sweep.config.schema.head_fields import METRICS
from danube_sweep.data.encoded import Truth
from danube_sweep.results.answers import Answers, answered_alike, read_answers
from danube_sweep.results.bootstrap import fold_of, resampled
from danube_sweep.results.metric_sums import RESAMPLED, metric_sums, value_of
from danube_sweep.storage import predictions
from danube_sweep.training.metrics import measure, quadratic_kappa, word_metrics

NOT_SUMS = {"auroc", "ece", "spearman"}
CLASSES = {
    Target.one: ["a", "b", "c", "d"],  # nobody has d, and nobody says it
    Target.ordered: ["1", "2", "3", "4"],
    Target.many: ["x", "y", "z"],
    Target.number: ["points"],
    Target.words: ["O", "B-X", "I-X", "B-Y", "I-Y", "Z"],
    Target.nothing: [],
}


def answered(target: Target, rows: int = 60) -> tuple[NDArray[Any], NDArray[Any] | None, Truth]:
    """Labels, answers and truth of rows of a target, in the form of an evaluation."""
    generator, count = np.random.default_rng(4), len(CLASSES[target])
    sure = generator.dirichlet(np.ones(count), size=rows) if count > 1 else np.zeros((rows, 1))
    places = generator.integers(0, max(count, 1), size=rows)
    match target:
        case Target.one:
            places, sure[:, 3] = places % 3, 0.0
            labels = np.eye(count)[places]
        case Target.ordered:
            labels = np.eye(count)[places]
        case Target.many:
            labels, sure = generator.integers(0, 2, size=(rows, count)), generator.random((rows, count))
            labels[:, 2], sure[:, 2] = 0, 0.1  # a class that counts, though no row has it
        case Target.number:
            labels = generator.normal(size=(rows, 1)) + 5
            sure = labels + generator.normal(size=(rows, 1))
        case Target.words:
            labels = places[:, None]
        case Target.nothing:
            weights = generator.integers(1, 9, size=rows).astype(np.float32)
            return np.zeros((rows, 0), np.float32), None, Truth(np.zeros((rows, 0), np.float32), weights)
    starts = np.arange(rows) % 12 == 0 if target is Target.words else None
    truth = Truth(labels.astype(np.float32), np.ones(rows, dtype=np.float32), starts)
    return labels, sure.astype(np.float32), truth


def stored(folder: Path, target: Target) -> tuple[Answers, dict[str, float]]:
    """Predictions as a run writes them, and what its evaluation says of them."""
    labels, sure, truth = answered(target)
    losses = np.random.default_rng(5).random(len(labels)).astype(np.float32)
    if target in (Target.one, Target.ordered) and sure is not None:
        losses = -np.log(np.maximum(sure[labels.astype(bool)], 1e-15))
    words = target is Target.words
    ids = [f"{row // 12}:{row % 12}" if words else str(row) for row in range(len(labels))]
    file = folder / "predictions.parquet"
    groups = np.arange(len(labels)) // (12 if words else 3)
    predictions.write(
        file, target, CLASSES[target], predictions.Answered(ids, losses, labels, truth.weights, sure, groups)
    )
    found = read_answers(file)
    assert not isinstance(found, str), found
    answers = None if sure is None else torch.from_numpy(sure)
    return found, measure(target, CLASSES[target], answers, torch.from_numpy(losses), truth)


@pytest.mark.parametrize("target", Target)
def test_each_metric_that_is_a_sum_is_that_of_the_evaluation(tmp_path: Path, target: Target) -> None:
    found, measured = stored(tmp_path, target)
    assert set(METRICS[target]) - set(RESAMPLED) <= NOT_SUMS
    for name in set(METRICS[target]) & set(RESAMPLED):
        metric = metric_sums(f"validation/{name}")
        assert metric is not None
        assert value_of(metric, found) == pytest.approx(measured[name], rel=2e-5, abs=1e-6), name
    assert metric_sums("validation/auroc") is None and metric_sums("test/log_loss") is None


def kappa(answers: NDArray[Any], truth: Truth) -> float:
    return quadratic_kappa(torch.from_numpy(answers), torch.from_numpy(truth.labels))


def macro_f1(answers: NDArray[Any], truth: Truth) -> float:
    return float(f1_score(truth.labels > 0.5, answers > 0.5, average="macro", zero_division=0))


def entity_f1(answers: NDArray[Any], truth: Truth) -> float:
    assert truth.starts is not None
    said, wanted = answers.argmax(axis=1), truth.labels[:, 0].astype(np.int64)
    return word_metrics(said, wanted, truth.starts, CLASSES[Target.words])["entity_f1"]


@pytest.mark.parametrize(
    ("target", "name", "of"),
    [(Target.ordered, "qwk", kappa), (Target.many, "macro_f1", macro_f1), (Target.words, "entity_f1", entity_f1)],
)
def test_a_resample_has_the_metric_of_its_rows(tmp_path: Path, target: Target, name: str, of: Any) -> None:
    """The spread over resamples against that of the metric of rows that numpy draws, group by group."""
    found, measured = stored(tmp_path, target)
    metric = metric_sums(f"validation/{name}")
    assert metric is not None
    away = resampled(metric.value, fold_of(found.places_N, found.weights_N, [metric.sums(found)]), seed=1)[:, 0]
    _, sure, truth = answered(target)
    groups, generator, values = len(set(found.places_N.tolist())), np.random.default_rng(9), []
    members = [np.flatnonzero(found.places_N == place) for place in range(groups)]
    for _ in range(200):
        rows = np.concatenate([members[place] for place in generator.integers(0, groups, groups)])
        starts = None if truth.starts is None else truth.starts[rows]
        assert sure is not None
        values.append(of(sure[rows], Truth(truth.labels[rows], truth.weights[rows], starts)))
    stretch = (groups / (groups - 1)) ** 0.5
    assert away.std() == pytest.approx(np.std(values) * stretch, rel=0.15)
    assert away.mean() == pytest.approx(np.mean(values) - measured[name], abs=0.25 * np.std(values))


def test_the_answer_without_reading_has_a_loss_on_every_row(tmp_path: Path) -> None:
    found, _ = stored(tmp_path, Target.one)
    alike = answered_alike(found, [0.4, 0.3, 0.2, 0.1])
    assert alike is not None and found.labels_N is not None
    assert alike.losses_N.tolist() == pytest.approx([-np.log([0.4, 0.3, 0.2, 0.1])[k] for k in found.labels_N.tolist()])
    accuracy = metric_sums("validation/accuracy")
    assert accuracy is not None and value_of(accuracy, alike) == (found.labels_N == 0).mean()
    (tmp_path / "n").mkdir()
    numbers, _ = stored(tmp_path / "n", Target.number)
    mean = answered_alike(numbers, [5.0])
    assert mean is not None and numbers.wanted_N is not None
    assert mean.losses_N.tolist() == pytest.approx(((numbers.wanted_N - 5) ** 2).tolist())
    assert answered_alike(found, [0.5, 0.5]) is None and answered_alike(found, []) is None
