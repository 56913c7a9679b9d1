"""Learning-rate schedules, by transformers."""

from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from danube_sweep.config.schema import Constant, Cosine, InverseSqrt, Linear, Schedule, Wsd


def build_schedule(config: Schedule, optimizer: torch.optim.Optimizer, *, total_steps: int) -> LRScheduler:
    """A schedule to step once after every optimizer step."""
    match config:
        case Linear():
            name = "linear"
        case Cosine():
            name = "cosine"
        case Constant():
            name = "constant_with_warmup"
        case InverseSqrt():
            name = "inverse_sqrt"
        case Wsd():
            name = "warmup_stable_decay"
        case _:
            raise TypeError(f"no builder for {config}")
    warmup_steps = min(round(config.warmup * total_steps), total_steps - 1)  # the last step is past it
    own: dict[str, Any] = {}
    if isinstance(config, Wsd):
        going_down = min(max(1, round(config.decay * total_steps)), total_steps - warmup_steps)
        own = {"num_decay_steps": going_down, "decay_type": "linear"}
    schedule: LRScheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=total_steps,
        scheduler_specific_kwargs=own,
    )
    return schedule
