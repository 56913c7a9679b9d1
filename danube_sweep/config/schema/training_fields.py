"""The learning rate over time, steps and batches."""

from dataclasses import dataclass
from typing import Any

from danube_sweep.config.schema.fields import setting


@dataclass
class Schedule:
    warmup: float = setting("share of all steps for the warm-up, 0 to 1", 0.05)


@dataclass
class Linear(Schedule):
    """Falls to zero linearly."""


@dataclass
class Cosine(Schedule):
    """Falls to zero along half a cosine."""


@dataclass
class Constant(Schedule):
    """Stays at the peak."""


@dataclass
class InverseSqrt(Schedule):
    """Falls with one over the root of the step and never reaches zero."""


@dataclass
class Wsd(Schedule):
    """Warms up, stays, then falls to zero (arXiv:2404.06395)."""

    decay: float = setting("share of all steps for the fall, above 0 and up to 1", 0.2)


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "constant": Constant,
    "inverse_sqrt": InverseSqrt,
    "wsd": Wsd,
}
"""Option -> dataclass."""


def schedule_name(schedule: Schedule) -> str:
    """The option that a schedule is of."""
    return next(name for name, kind in SCHEDULES.items() if type(schedule) is kind)


@dataclass
class Trainer:
    epochs: float = setting("passes over the training part", 2.0)
    max_steps: int | None = setting("optimizer steps; overrides epochs", None)
    stop_after: int | None = setting(
        "end training after this many of the steps, while the learning rate follows all of them; null trains them all",
        None,
    )
    micro_batch: Any = setting(
        "rows per forward pass; auto takes the largest divisor of effective_batch that fits the device", 8
    )
    effective_batch: int = setting("rows per optimizer step; a multiple of micro_batch", 16)
    eval_batch: int | None = setting(
        "rows per forward pass in evaluation; null goes by tokens, at least those of a micro-batch of the longest rows",
        None,
    )
    clip_norm: float | None = setting("largest gradient norm; null turns clipping off", 1.0)
    validate_every: int | None = setting("steps between validations; null gives five validations per run", None)
    best_by: str | None = setting(
        "validation metric that chooses the best step and ranks sweeps, such as qwk or token_f5; null for the loss",
        None,
    )
    patience: int | None = setting("stop after this many validations without an improvement; null for never", None)
    log_every: int = setting("steps between writes to metrics.csv", 10)
    score_test: bool = setting("score the test part once at the end", False)
    benchmark: list[str] = setting(
        "tasks of lm-evaluation-harness that score the backbone before and after training: post, [arc_easy], …", []
    )
    benchmark_test: bool = setting(
        "score those of the tasks that use a test split; in a sweep, only the winner is scored on them, at the end",
        True,
    )
    benchmark_limit: int | None = setting("items of each task of trainer.benchmark; null for all", None)
    benchmark_dir: str | None = setting(
        "folder of your own tasks for trainer.benchmark: a YAML file and data for each", None, path="folder"
    )
