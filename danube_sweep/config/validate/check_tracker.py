"""The check for the package that a tracker needs."""

from importlib.util import find_spec

from danube_sweep.config.schema import TensorboardTracking, Tracking, WandbTracking
from danube_sweep.errors import ConfigError


def check_package(tracking: Tracking) -> None:
    """Raises ConfigError if the package that is asked for is missing. tracking.mode=auto does without wandb."""
    match tracking:
        case TensorboardTracking() if not _is_installed("tensorboard"):
            raise ConfigError(
                "tracking=tensorboard needs tensorboard: pip install 'danube_sweep[tensorboard]', or take tracking=none"
            )
        case WandbTracking(mode="online" | "offline" as mode) if not _is_installed("wandb"):
            raise ConfigError(f"tracking.mode={mode} needs wandb: pip install wandb, or take tracking=none")


def _is_installed(name: str) -> bool:
    found = find_spec(name)
    return found is not None and found.origin is not None  # a run's folder wandb/ or tensorboard/ is no package
