"""Charts of a run's validation predictions: confusions and calibration. Shapes: N rows, C classes, B bins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danube_sweep.storage.predictions import Classified

BINS = 15
"""As many as the metric `ece` has."""


def confusions(found: Classified) -> NDArray[np.int64]:
    """How many rows of each class (first axis) were taken for each class (second axis), [C, C]."""
    counts_CC = np.zeros((len(found.classes),) * 2, dtype=np.int64)
    np.add.at(counts_CC, (found.labels_N, found.probabilities_NC.argmax(axis=1)), 1)
    return counts_CC


@dataclass(frozen=True)
class Calibration:
    """Rows by the confidence of their answer; bins without rows are left out. A calibrated model has equal means."""

    confidence_B: NDArray[np.float64]
    accuracy_B: NDArray[np.float64]
    rows_B: NDArray[np.int64]


def calibration(found: Classified) -> Calibration:
    """The reliability diagram over equal bins of the confidence (arXiv:1706.04599)."""
    confidence_N = found.probabilities_NC.max(axis=1)
    right_N = found.probabilities_NC.argmax(axis=1) == found.labels_N
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows_B = np.bincount(bin_N, minlength=BINS)
    filled_B = rows_B > 0
    rows = rows_B[filled_B]
    confidence = np.bincount(bin_N, weights=confidence_N, minlength=BINS)[filled_B] / rows
    return Calibration(confidence, np.bincount(bin_N, weights=right_N, minlength=BINS)[filled_B] / rows, rows)
