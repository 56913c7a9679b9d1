"""A temperature for a run's probabilities, fitted on its validation rows, and its worth on unseen rows.

Temperature scaling (arXiv:1706.04599) divides the logits by one number. Axes: N examples, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danube_sweep.errors import ConfigError
from danube_sweep.results.answers import Answers, Codes, read_answers
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.storage.predictions import Floats

FOLDS = 5
"""Of the cross-fitting, over groups of rows."""
LOWEST, HIGHEST = 0.05, 20.0
_SURE = 1e-12


@dataclass(frozen=True)
class Calibration:
    """A temperature, and log loss and ECE before and after, each row scored by a temperature of other rows."""

    temperature: float
    rows: int
    before: dict[str, float]
    after: dict[str, float]

    def said(self) -> str:
        """One line."""
        changes = (f"{name} {self.before[name]:.4f} -> {self.after[name]:.4f}" for name in ("log_loss", "ece"))
        told = f"temperature {self.temperature:.3f} from {self.rows:,} validation rows"
        return f"{told}; on unseen ones {', '.join(changes)}"


def calibrate(predictions: Path) -> Calibration:
    """The calibration of a run by its predictions. Raises ConfigError where there is nothing to fit it on."""
    found = read_answers(predictions)
    if isinstance(found, str):
        raise ConfigError(f"--calibrate is fitted on validation rows, and {predictions} has {found}; leave it out")
    if found.labels_N is None or found.probabilities_NC is None:
        raise ConfigError("--calibrate needs one class an example; this run answers otherwise, so leave it out")
    groups_N = found.places_N
    if len(np.unique(groups_N)) < FOLDS:
        raise ConfigError(f"--calibrate needs validation rows of {FOLDS} groups, to be judged; leave it out")
    after_NC = _cross_fitted(found.probabilities_NC, found.labels_N, groups_N)
    return Calibration(
        best_temperature(found.probabilities_NC, found.labels_N),
        len(found.labels_N),
        _scores(found.probabilities_NC, found),
        _scores(after_NC, found),
    )


def best_temperature(probabilities_NC: Floats, labels_N: Codes) -> float:
    """The temperature with the lowest log loss on these rows."""
    from scipy.optimize import minimize_scalar

    log_NC = np.log(np.maximum(probabilities_NC, _SURE))

    def loss(log_temperature: float) -> float:
        scaled_NC = log_NC / np.exp(log_temperature)
        highest_N = scaled_NC.max(axis=1)
        total_N = highest_N + np.log(np.exp(scaled_NC - highest_N[:, None]).sum(axis=1))
        return float((total_N - scaled_NC[np.arange(len(labels_N)), labels_N]).mean())

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def _cross_fitted(probabilities_NC: Floats, labels_N: Codes, groups_N: Codes) -> Floats:
    fold_G = np.random.default_rng(0).permutation(int(groups_N.max()) + 1) % FOLDS
    found_NC = np.empty_like(probabilities_NC)
    for fold in range(FOLDS):
        out_N = fold_G[groups_N] == fold
        temperature = best_temperature(probabilities_NC[~out_N], labels_N[~out_N])
        found_NC[out_N] = tempered(probabilities_NC[out_N], temperature, shares=True)
    return found_NC


def _scores(probabilities_NC: Floats, answers: Answers) -> dict[str, float]:
    import torch

    from danube_sweep.training.metrics import classification_metrics

    assert answers.labels_N is not None
    labels_NC = np.eye(probabilities_NC.shape[1])[answers.labels_N]
    metrics = classification_metrics(torch.from_numpy(probabilities_NC.copy()), torch.from_numpy(labels_NC))
    return {name: metrics[name] for name in ("log_loss", "ece")}
