"""The checks that need no file, no network and no torch. Past them, the config is trusted.

common_checks  shared by all · check_model, check_lora, check_task, check_parts, check_training, check_device
the groups · check_sweep  a sweep's settings · check_tracker  the package that a tracker needs
"""

from danube_sweep.config import offered_options
from danube_sweep.config.facts.adapters import FOUR_BIT
from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.require import check_seed, require
from danube_sweep.config.schema import Config
from danube_sweep.config.validate.check_device import (
    ALL,
    SHARDED,
    check_own_accelerator,
    check_place,
    check_runs,
    check_types,
    validate_device,
    validate_tracking,
)
from danube_sweep.config.validate.check_lora import block_numbers
from danube_sweep.config.validate.check_model import check_adapter, validate_lora, validate_model, validate_precision
from danube_sweep.config.validate.check_task import validate_data, validate_head
from danube_sweep.config.validate.check_tracker import check_package
from danube_sweep.config.validate.check_training import AUTO, validate_optimizer, validate_schedule, validate_trainer
from danube_sweep.config.validate.common_checks import check_finite

__all__ = [
    "ALL",
    "AUTO",
    "FOUR_BIT",
    "SHARDED",
    "block_numbers",
    "check_adapter",
    "check_own_accelerator",
    "check_package",
    "check_place",
    "check_runs",
    "check_types",
    "validate",
]


def validate(config: Config) -> None:
    """Raises ConfigError for the first value or combination that cannot work."""
    check_finite(config, "")
    check_seed("seed", config.seed)
    validate_model(config.model)
    validate_precision(config.precision)
    validate_lora(config)
    validate_head(config)
    validate_optimizer(config.optimizer)
    validate_schedule(config)
    config.optimizer.check_trial(config)
    offered_options.check_extension(config.head)
    offered_options.check_extension(config.optimizer)
    validate_data(config.data)
    validate_trainer(config.trainer)
    require(
        not config.trainer.benchmark or not FAMILIES[config.model.shape.model_type].encoder,
        f"trainer.benchmark={config.trainer.benchmark} needs a causal language model; {config.model.shape.model_type} "
        "is an encoder. Leave it out, or choose another model",
    )
    require(
        config.objective in config.head.metrics,
        f"trainer.best_by={config.trainer.best_by}: this head does not report that metric; it reports "
        f"{', '.join(config.head.metrics)}",
    )
    _needs_validation(config)
    require(
        not config.trainer.score_test or config.data.own_parts[1] is not None or config.data.test_fraction > 0,
        "trainer.score_test=true needs a test part; give data.test_path or data.test_fraction",
    )
    validate_device(config)
    validate_tracking(config.tracking)


def _needs_validation(config: Config) -> None:
    if config.data.validates:
        return
    for name in ("patience", "best_by"):
        value = getattr(config.trainer, name)
        require(
            value is None,
            f"trainer.{name}={value} reads validations, and no rows validate here; give trainer.{name}=null, or "
            "validation rows by data.validation_fraction",
        )
