"""What a run's validation predictions show: confusions and calibration. Shapes: N rows, C classes, B bins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

PROBABILITY = "probability_"
BINS = 15
"""As many as the metric `ece` has."""


@dataclass(frozen=True)
class StoredPredictions:
    """predictions.parquet: all its columns, and for a classifier each row's label as an index into `classes`."""

    columns: dict[str, list[Any]]
    classes: list[str]
    labels_N: NDArray[np.int64]
    probabilities_NC: NDArray[np.float64]

    def rows(self, most: int) -> list[list[Any]]:
        """The first `most` rows, in the order of `columns`."""
        return [list(row) for row in zip(*(values[:most] for values in self.columns.values()), strict=True)]


def read_predictions(file: Path) -> StoredPredictions:
    """Reads a run's predictions. Raises OSError or ValueError for a file that is missing or not ours."""
    columns = parquet.read_table(file).to_pydict()
    single = "label" in columns  # not so where a row may have several classes
    classes = [name.removeprefix(PROBABILITY) for name in columns if name.startswith(PROBABILITY) and single]
    place = {name: index for index, name in enumerate(classes)}
    labels_N = np.array([place[label] for label in columns["label"]] if classes else [], dtype=np.int64)
    probabilities_NC = np.array([columns[PROBABILITY + name] for name in classes], dtype=np.float64).T
    return StoredPredictions(columns, classes, labels_N, probabilities_NC)


def confusions(predictions: StoredPredictions) -> NDArray[np.int64]:
    """How many rows of each class (first axis) were taken for each class (second axis), [C, C]."""
    counts_CC = np.zeros((len(predictions.classes),) * 2, dtype=np.int64)
    np.add.at(counts_CC, (predictions.labels_N, predictions.probabilities_NC.argmax(axis=1)), 1)
    return counts_CC


@dataclass(frozen=True)
class Calibration:
    """Rows by the confidence of their answer; bins without rows are left out. A calibrated model has equal means."""

    confidence_B: NDArray[np.float64]
    accuracy_B: NDArray[np.float64]
    rows_B: NDArray[np.int64]


def calibration(predictions: StoredPredictions) -> Calibration:
    """The reliability diagram over equal bins of the confidence (arXiv:1706.04599)."""
    confidence_N = predictions.probabilities_NC.max(axis=1)
    right_N = predictions.probabilities_NC.argmax(axis=1) == predictions.labels_N
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
    rows_B = np.bincount(bin_N, minlength=BINS)
    filled_B = rows_B > 0
    rows = rows_B[filled_B]
    confidence = np.bincount(bin_N, weights=confidence_N, minlength=BINS)[filled_B] / rows
    return Calibration(confidence, np.bincount(bin_N, weights=right_N, minlength=BINS)[filled_B] / rows, rows)
