"""Checks of any config node, and whose shape counts."""

import dataclasses
import math
from pathlib import Path

from danube_sweep.config.require import require
from danube_sweep.config.schema import Init, Model


def own_config(model: Model) -> bool:
    """Whether a local folder's config.json wins over the shape."""
    return model.init is not Init.random and model.path is not None and Path(model.path).expanduser().is_dir()


def check_finite(node: object, prefix: str) -> None:
    """Raises ConfigError for the first float in a config that is not finite."""
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            require(math.isfinite(value), f"{prefix}{field.name} must be a finite number, got {value}")
