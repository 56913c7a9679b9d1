"""The update rule, the learning rate over time, steps and batches."""

from dataclasses import dataclass
from typing import Any

from danube_sweep.schema.fields import setting


@dataclass
class Optimizer:
    lr: float = setting("peak learning rate", "${model.lr}")
    weight_decay: float = setting("decoupled decay; never on norms and biases", 0.01)
    beta1: float = setting("decay of the first moment", 0.9)
    beta2: float = setting("decay of the second moment", 0.999)
    eps: float = setting("added to the denominator", 1e-8)


@dataclass
class AdamW(Optimizer):
    """torch's AdamW, fp32 states."""


@dataclass
class AdamW8bit(Optimizer):
    """bitsandbytes' AdamW, states in 8 bits."""


@dataclass
class PagedAdamW8bit(Optimizer):
    """bitsandbytes' AdamW, states in 8 bits and paged to host memory when the GPU's is short."""


@dataclass
class Schedule:
    warmup: float = setting("share of all steps spent warming up, 0 to 1", 0.05)


@dataclass
class Linear(Schedule):
    """Down to zero in a straight line."""


@dataclass
class Cosine(Schedule):
    """Down to zero along half a cosine."""


@dataclass
class Constant(Schedule):
    """Stays at the peak."""


@dataclass
class Trainer:
    epochs: float = setting("passes over the training part", 2.0)
    max_steps: int | None = setting("optimizer steps; overrides epochs", None)
    micro_batch: Any = setting("rows per forward pass; auto: the most that fits the device", 8)
    effective_batch: int = setting("rows per optimizer step; a multiple of micro_batch", 16)
    eval_batch: int | None = setting("rows per forward pass in evaluation; null takes micro_batch", None)
    clip_norm: float | None = setting("largest gradient norm; null does not clip", 1.0)
    validate_every: int | None = setting("steps between validations; null makes five in the run", None)
    patience: int | None = setting("stop after this many validations without a better one; null never", None)
    log_every: int = setting("steps between writes of their rows to metrics.csv", 10)
    score_test: bool = setting("score the test part, once, at the end", False)
