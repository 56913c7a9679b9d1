"""The validation predictions of a row, recomputed from its files. Shapes: N rows, C classes, B bins."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import LABEL, LOSS, PREDICTION, WEIGHT, Classified, floats
from danube_sweep.tracking.prediction_charts import Calibration, calibration, confusions


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
    """The facts in these files' predictions; None if one is missing or damaged, or if classes differ."""
    try:
        tables = [predictions.read(file) for file in files]
        read = [predictions.classified(table) for table in tables]
        recomputed = [_recomputed(*both) for both in zip(tables, read, strict=True)]
    except predictions.DAMAGED:
        return None
    if not read or any(_classes(one) != _classes(read[0]) for one in read):
        return None
    together = _together([one for one in read if one is not None])
    return Seen(
        rows=sum(len(table) for table in tables),
        fingerprint=_fingerprint(tables),
        recomputed={name: float(np.mean([one[name] for one in recomputed])) for name in recomputed[0]},
        classes=_classes(read[0]),
        confusions_CC=np.zeros((0, 0), dtype=np.int64) if together is None else confusions(together),
        calibration=None if together is None else calibration(together),
    )


def _classes(found: Classified | None) -> list[str]:
    return [] if found is None else found.classes


def _together(found: Sequence[Classified]) -> Classified | None:
    if not any(len(one.labels_N) for one in found):
        return None
    labels_N = np.concatenate([one.labels_N for one in found])
    return Classified(found[0].classes, labels_N, np.concatenate([one.probabilities_NC for one in found]))


def _recomputed(table: Any, found: Classified | None) -> dict[str, float]:
    names = table.column_names
    if PREDICTION in names:
        error_N = floats(table, PREDICTION) - floats(table, LABEL)
        return {"mse": float(np.square(error_N).mean()), "mae": float(np.abs(error_N).mean())}
    weights_N = floats(table, WEIGHT) if WEIGHT in names else None
    metrics = {"log_loss": float(np.average(floats(table, LOSS), weights=weights_N))}
    if found is not None:
        metrics["accuracy"] = float((found.probabilities_NC.argmax(axis=1) == found.labels_N).mean())
    return metrics


def _fingerprint(tables: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    rows = set()
    for table in tables:
        columns = [name for name in table.column_names if predictions.is_truth(name)]
        texts = [table[name].cast(pa.string()).to_pylist() for name in columns]
        rows.add(hashlib.sha256(repr(texts).encode()).digest())
    for one in sorted(rows):
        digest.update(one)
    return digest.hexdigest()[:12]
