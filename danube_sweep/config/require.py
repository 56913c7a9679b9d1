"""How a check refuses a value."""

from danube_sweep.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_seed(name: str, value: int) -> None:
    """Raises ConfigError for a seed that generators do not take."""
    require(0 <= value < 2**32, f"{name} must be at least 0 and under 2**32, got {value}")
