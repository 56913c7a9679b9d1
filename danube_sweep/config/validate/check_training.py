"""The checks of optimizer, schedule and trainer."""

from danube_sweep.config.require import require
from danube_sweep.config.schema import Config, Optimizer, Trainer, Wsd

AUTO = "auto"


def validate_optimizer(optimizer: Optimizer) -> None:
    """Raises ConfigError for a value out of range."""
    require(0 < optimizer.lr < 1e38, f"optimizer.lr must be above 0 and under 1e38, got {optimizer.lr}")
    require(
        optimizer.weight_decay >= 0,
        f"optimizer.weight_decay must be at least 0, got {optimizer.weight_decay}",
    )
    for name in ("beta1", "beta2", "beta3", "momentum"):
        value = getattr(optimizer, name, 0.0)
        require(0 <= value < 1, f"optimizer.{name} must be at least 0 and under 1, got {value}")
    for name in ("eps", "slow", "clip"):
        value = getattr(optimizer, name, 1.0)
        require(value > 0, f"optimizer.{name} must be above 0, got {value}")


def validate_schedule(config: Config) -> None:
    """Raises ConfigError for shares out of range."""
    require(
        0 <= config.schedule.warmup < 1,
        f"schedule.warmup must be at least 0 and under 1, got {config.schedule.warmup}: it is a share of all steps",
    )
    if isinstance(config.schedule, Wsd):
        share = config.schedule.warmup + config.schedule.decay
        require(
            config.schedule.decay > 0 and share <= 1,
            f"schedule.decay must be above 0, and at most 1 together with schedule.warmup, got {config.schedule.decay}",
        )


def validate_trainer(trainer: Trainer) -> None:
    """Raises ConfigError for steps and batches out of range."""
    require(trainer.epochs > 0, f"trainer.epochs must be above 0, got {trainer.epochs}")
    micro, effective = trainer.micro_batch, trainer.effective_batch
    require(
        micro == AUTO or (isinstance(micro, int) and not isinstance(micro, bool)),
        f"trainer.micro_batch must be a whole number or auto, got {micro}",
    )
    require(effective >= 1, f"trainer.effective_batch must be at least 1, got {effective}")
    for name in ("max_steps", "stop_after", "eval_batch", "validate_every", "patience", "log_every"):
        value = getattr(trainer, name)
        require(value is None or value >= 1, f"trainer.{name} must be at least 1, got {value}")
    require(
        trainer.max_steps is None or trainer.stop_after is None or trainer.stop_after <= trainer.max_steps,
        f"trainer.stop_after must be at most trainer.max_steps={trainer.max_steps}, got {trainer.stop_after}",
    )
    require(micro == AUTO or micro >= 1, f"trainer.micro_batch must be at least 1, got {micro}")
    require(
        micro == AUTO or (effective >= micro and effective % micro == 0),
        f"trainer.effective_batch must be a multiple of trainer.micro_batch={micro}, got {effective}",
    )
    limit = trainer.benchmark_limit
    require(limit is None or limit >= 1, f"trainer.benchmark_limit must be at least 1, got {limit}; null for all items")
    for name in ("benchmark_limit", "benchmark_dir"):
        value = getattr(trainer, name)
        require(value is None or bool(trainer.benchmark), f"trainer.{name}={value} needs trainer.benchmark=[TASK,…]")
    require(
        trainer.benchmark_test or bool(trainer.benchmark),
        "trainer.benchmark_test=false needs trainer.benchmark=[TASK,…]",
    )
    require(
        trainer.clip_norm is None or trainer.clip_norm > 0,
        f"trainer.clip_norm must be above 0, got {trainer.clip_norm}; null does not clip",
    )
