"""Which models a benchmark can be asked of. Imports no torch."""

from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.schema import Config
from danube_sweep.errors import ConfigError


def check_language_model(config: Config) -> None:
    """Raises ConfigError for an encoder, which has no next token to score."""
    if FAMILIES[config.model.shape.model_type].encoder:
        raise ConfigError(
            f"benchmark needs a causal language model; {config.model.shape.model_type} is an encoder. "
            "Choose another model, such as model=danube3_500m"
        )
