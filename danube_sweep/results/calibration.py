"""Calibration of a run's probabilities, fitted on its validation rows, and its worth on unseen rows.

Temperature scaling (arXiv:1706.04599) divides the logits by one number. Vector scaling multiplies the log
probability of each class by a number of its own and adds another. Axes: N examples, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from danube_sweep.errors import ConfigError
from danube_sweep.results.answers import Answers, Codes, answers_read
from danube_sweep.results.bootstrap import FOLDS, cross_folds
from danube_sweep.results.decisions.rules import log_of
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import LOSS, Floats

ROWS_PER_CLASS = 50
"""Of the rarest class, below which no number is fitted for each class."""
LOWEST, HIGHEST = 0.05, 20.0
TEMPERATURE, VECTOR = "temperature", "vector"


@dataclass(frozen=True)
class Scaling:
    """A factor and an offset for the log probability of each class, before the probabilities sum to 1 again."""

    slopes_C: tuple[float, ...]
    biases_C: tuple[float, ...]

    def __call__(self, probabilities_NC: Floats) -> Floats:
        """The scaled probabilities."""
        from scipy.special import softmax

        scaled_NC = log_of(probabilities_NC) * np.array(self.slopes_C) + np.array(self.biases_C)
        return np.asarray(softmax(scaled_NC, axis=1))


@dataclass(frozen=True)
class Calibration:
    """A temperature or a scaling, and log loss and ECE before and after, each row scored by one of other rows."""

    temperature: float
    """1 where there is a scaling."""
    scaling: Scaling | None
    classes: list[str]
    rows: int
    before: dict[str, float]
    after: dict[str, float]

    def __call__(self, probabilities_NC: Floats) -> Floats:
        """The calibrated probabilities."""
        return _applied(self.temperature if self.scaling is None else self.scaling, probabilities_NC)

    def said(self) -> str:
        """One line."""
        changes = (f"{name} {self.before[name]:.4f} -> {self.after[name]:.4f}" for name in ("log_loss", "ece"))
        told = f"temperature {self.temperature:.3f}"
        if self.scaling is not None:
            numbers = zip(self.classes, self.scaling.slopes_C, self.scaling.biases_C, strict=True)
            each = [f"{name} x{slope:.3f} {bias:+.3f}" for name, slope, bias in numbers]
            told = f"log probabilities scaled by class ({', '.join(each[:6])}{', …' if len(each) > 6 else ''})"
        gain = self.before["log_loss"] - self.after["log_loss"]
        no_better = "" if gain > 0 else "; the log loss is no better, so better leave --calibrate out"
        return f"{told} from {self.rows:,} validation rows; on unseen ones {', '.join(changes)}{no_better}"


def calibrate(file: Path, method: str = TEMPERATURE) -> Calibration:
    """The calibration of a run or an ensemble by its predictions, or by a file of `danube-sweep oof`.

    Raises ConfigError if there is nothing to fit it on.

    `auto` takes vector scaling if every class has enough rows and its log loss on unseen rows is lower.
    """
    found = _answers(file)
    assert found.labels_N is not None and found.probabilities_NC is not None
    rarest = int(np.bincount(found.labels_N, minlength=len(found.classes)).min())
    if method == VECTOR and rarest < ROWS_PER_CLASS:
        raise ConfigError(
            f"--calibrate vector needs {ROWS_PER_CLASS} validation rows of each class, and the rarest has {rarest}; "
            "give --calibrate temperature"
        )
    by_temperature = _judged(found, best_temperature)
    if method == TEMPERATURE or rarest < ROWS_PER_CLASS:
        return by_temperature
    by_class = _judged(found, best_scaling)
    better = by_class.after["log_loss"] < by_temperature.after["log_loss"]
    return by_class if method == VECTOR or better else by_temperature


def _answers(file: Path) -> Answers:
    found = answers_read(lambda: _with_losses(file))
    if isinstance(found, str):
        raise ConfigError(
            f"--calibrate is fitted on validation rows, and {file} has {found}; give --calibrate-on FILE, like the "
            "file of danube-sweep oof, or leave it out"
        )
    if found.labels_N is None or found.probabilities_NC is None:
        raise ConfigError("--calibrate needs one class an example; this run answers otherwise, so leave it out")
    if len(np.unique(found.places_N)) < FOLDS:
        raise ConfigError(f"--calibrate needs validation rows of {FOLDS} groups, to be judged; leave it out")
    return found


def _with_losses(file: Path) -> pa.Table:
    table = predictions.read(file)
    if LOSS not in table.column_names and (one := predictions.classified(table)) is not None:  # a file of oof
        right_N = one.probabilities_NC[np.arange(len(table)), one.labels_N]
        table = table.append_column(LOSS, pa.array(-np.log(np.maximum(right_N, np.finfo(np.float64).tiny))))
    return table


def _judged(found: Answers, fit: Callable[[Floats, Codes], float | Scaling]) -> Calibration:
    probabilities_NC, labels_N = found.probabilities_NC, found.labels_N
    assert labels_N is not None and probabilities_NC is not None
    fitted, groups_N = fit(probabilities_NC, labels_N), found.places_N
    fold_N = cross_folds(groups_N)
    after_NC = np.empty_like(probabilities_NC)
    for fold in range(FOLDS):
        out_N = fold_N == fold
        after_NC[out_N] = _applied(fit(probabilities_NC[~out_N], labels_N[~out_N]), probabilities_NC[out_N])
    scaling = fitted if isinstance(fitted, Scaling) else None
    temperature = 1.0 if isinstance(fitted, Scaling) else fitted
    scores = (_scores(probabilities_NC, found), _scores(after_NC, found))
    return Calibration(temperature, scaling, found.classes, len(labels_N), *scores)


def _applied(fitted: float | Scaling, probabilities_NC: Floats) -> Floats:
    if isinstance(fitted, Scaling):
        return fitted(probabilities_NC)
    return tempered(probabilities_NC, fitted, shares=True)


def best_scaling(probabilities_NC: Floats, labels_N: Codes) -> Scaling:
    """The slope and bias of each class with the lowest log loss on these rows; the biases sum to 0."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    log_NC = log_of(probabilities_NC)
    classes = log_NC.shape[1]
    wanted_NC = np.eye(classes)[labels_N]

    def loss(numbers: Any) -> tuple[float, Any]:
        told_NC = log_softmax(log_NC * numbers[:classes] + numbers[classes:], axis=1)
        wrong_NC = (np.exp(told_NC) - wanted_NC) / len(labels_N)
        gradient = np.concatenate([(wrong_NC * log_NC).sum(axis=0), wrong_NC.sum(axis=0)])
        return float(-(told_NC * wanted_NC).sum() / len(labels_N)), gradient

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7}).x
    biases_C = found[classes:] - found[classes:].mean()
    return Scaling(tuple(map(float, found[:classes])), tuple(map(float, biases_C)))


def best_temperature(probabilities_NC: Floats, labels_N: Codes) -> float:
    """The temperature with the lowest log loss on these rows."""
    from scipy.optimize import minimize_scalar

    log_NC = log_of(probabilities_NC)

    def loss(log_temperature: float) -> float:
        scaled_NC = log_NC / np.exp(log_temperature)
        highest_N = scaled_NC.max(axis=1)
        total_N = highest_N + np.log(np.exp(scaled_NC - highest_N[:, None]).sum(axis=1))
        return float((total_N - scaled_NC[np.arange(len(labels_N)), labels_N]).mean())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _scores(probabilities_NC: Floats, answers: Answers) -> dict[str, float]:
    import torch

    from danube_sweep.training.metrics import classification_metrics

    assert answers.labels_N is not None
    labels_NC = np.eye(probabilities_NC.shape[1])[answers.labels_N]
    metrics = classification_metrics(torch.from_numpy(probabilities_NC.copy()), torch.from_numpy(labels_NC))
    return {name: metrics[name] for name in ("log_loss", "ece")}
