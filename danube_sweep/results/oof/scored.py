"""A model with out-of-fold predictions, and their scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from danube_sweep.config.schema import Config


@dataclass(frozen=True)
class Scored:
    """Trials with all their folds, or an ensemble of such, and the joined answers of their folds."""

    name: str
    values: dict[str, Any]
    """By the keys that vary between the models."""
    folds: int
    seeds: int
    """Trials that were averaged in a fold; of an ensemble its members."""
    predictions: pa.Table
    metrics: dict[str, float]
    config: Config
    read: list[Path]
    """The files that the predictions come from."""
