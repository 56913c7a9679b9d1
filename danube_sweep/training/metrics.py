"""Metrics of a trial's predictions, by torchmetrics and scikit-learn.

Axes: N examples, C classes.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_cohen_kappa,
    multiclass_f1_score,
    multilabel_exact_match,
    multilabel_f1_score,
)
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

from danube_sweep.config.schema import Target
from danube_sweep.data.encoded import Truth
from danube_sweep.data.records import OUTSIDE

Places = NDArray[np.integer[Any]]


def classification_metrics(probabilities_NC: torch.Tensor, labels_NC: torch.Tensor) -> dict[str, float]:
    """Log loss (nats, against soft labels too), accuracy, macro F1, ECE (15 bins, L1; arXiv:1706.04599) and AUROC."""
    classes = probabilities_NC.shape[1]
    target_N = labels_NC.argmax(dim=1)
    log_NC = probabilities_NC.double().clamp(min=1e-15).log()
    hard_NC = torch.nn.functional.one_hot(target_N, classes)
    return {
        "log_loss": float(-(labels_NC * log_NC).sum(dim=1).mean()),
        "accuracy": float(multiclass_accuracy(probabilities_NC, target_N, num_classes=classes, average="micro")),
        "macro_f1": float(multiclass_f1_score(probabilities_NC, target_N, num_classes=classes, average="macro")),
        "ece": float(multiclass_calibration_error(probabilities_NC, target_N, num_classes=classes, n_bins=15)),
        "auroc": area_under_curve(probabilities_NC, hard_NC),
    }


RANKED_AT_ONCE = 2**22
"""Scores that `area_under_curve` ranks at a time: about 200 MB of copies."""


def area_under_curve(scores_NC: torch.Tensor, labels_NC: torch.Tensor) -> float:
    """The mean over classes of the area under the ROC curve, each class against the rest.

    Classes of no row or of every row are skipped. If no class is left, it is 0.5, the area of a random answer.
    """
    from scipy.stats import rankdata

    rows, classes = scores_NC.shape
    at_once = max(1, RANKED_AT_ONCE // max(1, rows))
    areas: list[float] = []
    for first in range(0, classes, at_once):
        there_NC = labels_NC[:, first : first + at_once].numpy() > 0.5
        scores = scores_NC[:, first : first + at_once].double().numpy()
        ranks_NC = rankdata(np.nan_to_num(scores, nan=0.0), axis=0)
        with_C = there_NC.sum(axis=0)
        both_C = (with_C > 0) & (with_C < rows)
        # Mann and Whitney's U of these classes at once, over the pairs that it counts.
        above_C = (ranks_NC * there_NC).sum(axis=0) - with_C * (with_C + 1) / 2
        areas += (above_C[both_C] / (with_C * (rows - with_C))[both_C]).tolist()
    return float(np.mean(areas)) if areas else 0.5


def decided(target: Target, probabilities_NC: torch.Tensor) -> torch.Tensor:
    """The class that is answered, classes_N: the likeliest, or of ordered ones the median."""
    if target is not Target.ordered:
        return probabilities_NC.argmax(dim=1)
    return (probabilities_NC.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=probabilities_NC.shape[1] - 1)


def quadratic_kappa(probabilities_NC: torch.Tensor, labels_NC: torch.Tensor) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968) of the median classes; 0 where no two rows differ."""
    found_N, wanted_N = decided(Target.ordered, probabilities_NC), labels_NC.argmax(dim=1)
    kappa = multiclass_cohen_kappa(found_N, wanted_N, num_classes=labels_NC.shape[1], weights="quadratic")
    return float(kappa.nan_to_num(0.0))


def regression_metrics(numbers_N: torch.Tensor, wanted_N: torch.Tensor) -> dict[str, float]:
    """Squared error, its root, absolute error, and correlation by value and by rank (0 where either is constant)."""
    numbers_N, wanted_N = numbers_N.double(), wanted_N.double()
    error_N = numbers_N - wanted_N
    mse = float(error_N.square().mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a variance near 0, which gives no correlation
        pearson = pearson_corrcoef(numbers_N, wanted_N).nan_to_num(0.0)
        spearman = spearman_corrcoef(numbers_N, wanted_N).nan_to_num(0.0)
    mae = float(error_N.abs().mean())
    return {"mse": mse, "rmse": mse**0.5, "mae": mae, "pearson": float(pearson), "spearman": float(spearman)}


def multilabel_metrics(probabilities_NC: torch.Tensor, labels_NC: torch.Tensor) -> dict[str, float]:
    """AUROC, F1 over all and by class, and the share of rows with every class right, with the border at 0.5."""
    classes = probabilities_NC.shape[1]
    there_NC = (labels_NC > 0.5).long()
    return {
        "auroc": area_under_curve(probabilities_NC, there_NC),
        "micro_f1": float(multilabel_f1_score(probabilities_NC, there_NC, num_labels=classes, average="micro")),
        "macro_f1": float(multilabel_f1_score(probabilities_NC, there_NC, num_labels=classes, average="macro")),
        "exact_match": float(multilabel_exact_match(probabilities_NC, there_NC, num_labels=classes)),
    }


def word_metrics(
    found_N: Places, wanted_N: Places, starts_N: NDArray[np.bool_], classes: list[str]
) -> dict[str, float]:
    """Accuracy, entities (exact spans and types, CoNLL-2003) and entity words (micro F1 and F5, without O).

    `starts_N` marks the first word of each text; no entity reaches over it.
    """
    entities = _scores(_entities(found_N, starts_N, classes), _entities(wanted_N, starts_N, classes))
    outside = classes.index(OUTSIDE) if OUTSIDE in classes else -1
    words = _scores(_marked(found_N, outside), _marked(wanted_N, outside))
    return {
        "accuracy": float((found_N == wanted_N).mean()),
        "entity_f1": _f_score(*entities, beta=1),
        "entity_precision": entities[0],
        "entity_recall": entities[1],
        "token_f1": _f_score(*words, beta=1),
        "token_f5": _f_score(*words, beta=5),
    }


Span = tuple[int, int, str]


def _entities(places_N: Places, starts_N: NDArray[np.bool_], classes: list[str]) -> set[Span]:
    # An entity begins at B-, at a type that changes, and at an I- with none before it, as conlleval has it; and at the
    # S- of IOBES, which is a whole one.
    kinds = [_kind(name, classes) for name in classes]
    spans: set[Span] = set()
    start, kind = 0, ""
    for place, (number, first) in enumerate(zip(places_N.tolist(), starts_N.tolist(), strict=True)):
        begins, here = kinds[number]
        if first or begins or here != kind:
            if kind:
                spans.add((start, place, kind))
            start, kind = place, here
    if kind:
        spans.add((start, len(places_N), kind))
    return spans


def _kind(name: str, classes: list[str]) -> tuple[bool, str]:
    """Whether a class begins an entity, and the entity's type; none outside of entities."""
    mark, _, kind = name.partition("-")
    if name == OUTSIDE:
        return False, ""
    if not kind and mark in ("B", "I") and {"B", "I"} <= set(classes):  # entities of one type have no names
        return mark == "B", "B"
    # A class without B- or I- is its own type.
    return mark == "B" or (mark == "S" and f"B-{kind}" in classes), kind or mark


def _marked(places_N: Places, outside: int) -> set[tuple[int, int]]:
    return {(place, number) for place, number in enumerate(places_N.tolist()) if number != outside}


def _scores(found: set[Span] | set[tuple[int, int]], wanted: set[Span] | set[tuple[int, int]]) -> tuple[float, float]:
    # Precision and recall; 0 where the divisor is 0.
    right = len(found & wanted)
    return right / max(len(found), 1), right / max(len(wanted), 1)


def _f_score(precision: float, recall: float, *, beta: float) -> float:
    both = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / both if both else 0.0


def measure(
    target: Target, classes: list[str], answers_NA: torch.Tensor | None, losses_N: torch.Tensor, truth: Truth
) -> dict[str, float]:
    """The metrics that METRICS names for a target, in their order. Raises ValueError for a target without metrics."""
    labels_NC = torch.from_numpy(truth.labels)
    loss = float(np.average(losses_N.double().numpy(), weights=truth.weights))
    if answers_NA is None:
        return {"log_loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    match target:
        case Target.one:
            return classification_metrics(answers_NA, labels_NC)
        case Target.ordered:
            kappa = quadratic_kappa(answers_NA, labels_NC)
            return {**classification_metrics(answers_NA, labels_NC), "qwk": kappa}
        case Target.many:
            return {"log_loss": loss, **multilabel_metrics(answers_NA, labels_NC)}
        case Target.number:
            return regression_metrics(answers_NA[:, 0], labels_NC[:, 0])
        case Target.words:
            assert truth.starts is not None
            found_N, wanted_N = answers_NA.argmax(dim=1).numpy(), truth.labels[:, 0].astype(np.int64)
            return {"log_loss": loss, **word_metrics(found_N, wanted_N, truth.starts, classes)}
        case _:
            raise ValueError(f"no metrics for answers to target={target.value}")


def answer_without_reading(target: Target, train_NC: torch.Tensor) -> torch.Tensor:
    """The best answer to any row from the training labels alone: each class's share, or the mean of the numbers.

    Shares are smoothed by the rule of succession (Laplace): each class counts as if one more row had it. So a class
    without training rows is not impossible. With several classes an example, each share is (n + 1) / (N + 2).
    """
    if target is Target.number:
        return train_NC.double().mean(dim=0)
    outcomes = 2 if target is Target.many else train_NC.shape[1]
    return (train_NC.double().sum(dim=0) + 1) / (len(train_NC) + outcomes)


def references(target: Target, train_NC: torch.Tensor, labels_NC: torch.Tensor) -> dict[str, float]:
    """The losses of the validation labels without reading: by `answer_without_reading`, or with every class alike.

    Raises ValueError for a target without labels.
    """
    mean_C = answer_without_reading(target, train_NC)
    match target:
        case Target.number:
            return {"prior_mse": float((labels_NC.double() - mean_C).square().mean())}
        case Target.many:
            log_C, rest_C = mean_C.log(), (1 - mean_C).log()
            return {"prior_log_loss": float(-(labels_NC * log_C + (1 - labels_NC) * rest_C).mean())}
        case Target.one | Target.ordered | Target.words:
            prior = float(-(labels_NC * mean_C.log()).sum(dim=1).mean())
            return {"uniform_log_loss": math.log(labels_NC.shape[1]), "prior_log_loss": prior}
        case _:
            raise ValueError(f"target={target.value} has no labels to know beforehand")
