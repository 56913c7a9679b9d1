"""Learning-rate schedules, by transformers."""

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from danube_sweep.schema import Constant, Cosine, Linear, Schedule


def build_schedule(config: Schedule, optimizer: torch.optim.Optimizer, *, total_steps: int) -> LRScheduler:
    """A schedule to step once after every optimizer step."""
    match config:
        case Linear():
            name = "linear"
        case Cosine():
            name = "cosine"
        case Constant():
            name = "constant_with_warmup"
        case _:
            raise TypeError(f"no builder for {config}")
    warmup_steps = min(round(config.warmup * total_steps), total_steps - 1)  # the last step is past it
    schedule: LRScheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps
    )
    return schedule
