"""What the validation predictions of a row show, recomputed from its files. Shapes: N rows, C classes, B bins."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, parquet

from danube_sweep.tracking.prediction_charts import PROBABILITY, Calibration, StoredPredictions, calibration, confusions


@dataclass(frozen=True)
class Seen:
    """The predictions of a row's trials together: each of its seeds and folds counts."""

    rows: int
    fingerprint: str
    """Over ids and labels: equal for trials that were validated on the same rows."""
    recomputed: dict[str, float]
    """Metrics by name, computed here."""
    classes: list[str]
    confusions_CC: NDArray[np.int64]
    """Actual by predicted; empty where a row has no single class."""
    calibration: Calibration | None


def read_seen(files: Sequence[Path]) -> Seen | None:
    """What the predictions in these files show; None where one is missing or damaged, or they have other classes."""
    try:
        tables = [_table(file) for file in files]
        read = [_predictions(table) for table in tables]
        recomputed = [_recomputed(*both) for both in zip(tables, read, strict=True)]
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    if not read or any(one.classes != read[0].classes for one in read):
        return None
    labels_N = np.concatenate([one.labels_N for one in read])
    together = StoredPredictions({}, read[0].classes, labels_N, np.concatenate([one.probabilities_NC for one in read]))
    has_classes = bool(together.classes) and len(labels_N) > 0
    return Seen(
        rows=sum(len(table) for table in tables),
        fingerprint=_fingerprint(tables),
        recomputed={name: float(np.mean([one[name] for one in recomputed])) for name in recomputed[0]},
        classes=together.classes,
        confusions_CC=confusions(together) if has_classes else np.zeros((0, 0), dtype=np.int64),
        calibration=calibration(together) if has_classes else None,
    )


def _table(file: Path) -> Any:
    with parquet.ParquetFile(file) as opened:
        return opened.read(use_threads=False)


def _predictions(table: Any) -> StoredPredictions:
    classes = [name.removeprefix(PROBABILITY) for name in table.column_names if name.startswith(PROBABILITY)]
    if "label" not in table.column_names or not classes:  # a number, several classes a row, or the text itself
        return StoredPredictions({}, [], np.zeros(0, dtype=np.int64), np.zeros((0, 0)))
    places = compute.index_in(table["label"].cast(pa.string()), value_set=pa.array(classes, pa.string()))
    if places.null_count:
        raise ValueError("a label that is no class")
    labels_N = places.to_numpy().astype(np.int64)
    probabilities_NC = np.stack([table[PROBABILITY + name].to_numpy() for name in classes], axis=1)
    return StoredPredictions({}, classes, labels_N, probabilities_NC.astype(np.float64))


def _recomputed(table: Any, predictions: StoredPredictions) -> dict[str, float]:
    names = table.column_names
    weights_N = table["weight"].to_numpy() if "weight" in names else None
    if "prediction" in names:
        error_N = table["prediction"].to_numpy().astype(np.float64) - table["label"].to_numpy()
        return {"mse": float(np.square(error_N).mean()), "mae": float(np.abs(error_N).mean())}
    found = {"log_loss": float(np.average(table["loss"].to_numpy().astype(np.float64), weights=weights_N))}
    if predictions.classes:
        right_N = predictions.probabilities_NC.argmax(axis=1) == predictions.labels_N
        found["accuracy"] = float(right_N.mean())
    return found


def _fingerprint(tables: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    rows = set()
    for table in tables:
        columns = [name for name in table.column_names if name == "id" or name.startswith("label")]
        texts = [table[name].cast(pa.string()).to_pylist() for name in columns]
        rows.add(hashlib.sha256(repr(texts).encode()).digest())
    for one in sorted(rows):
        digest.update(one)
    return digest.hexdigest()[:12]
