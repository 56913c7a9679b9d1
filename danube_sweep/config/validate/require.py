"""What the checks share."""

import dataclasses
import math
from pathlib import Path

from danube_sweep.config.schema import Init, Model
from danube_sweep.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_seed(name: str, value: int) -> None:
    """Raises ConfigError for a seed that generators do not take."""
    require(0 <= value < 2**32, f"{name} must be at least 0 and under 2**32, got {value}")


def own_config(model: Model) -> bool:
    """Whether a local folder's config.json wins over the shape."""
    return model.init is not Init.random and model.path is not None and Path(model.path).expanduser().is_dir()


def check_finite(node: object, prefix: str) -> None:
    """Raises ConfigError for the first float in a config that is no finite number."""
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            require(math.isfinite(value), f"{prefix}{field.name} must be a finite number, got {value}")
