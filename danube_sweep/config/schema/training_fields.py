"""The update rule, the learning rate over time, steps and batches."""

from dataclasses import dataclass
from typing import Any

from danube_sweep.config.schema.fields import setting


@dataclass
class Optimizer:
    lr: float = setting("peak learning rate", "${model.lr}")
    weight_decay: float = setting("decay of the weights, decoupled but for sgd; never on norms and biases", 0.01)


@dataclass
class Adam(Optimizer):
    beta1: float = setting("decay of the first moment", 0.9)
    beta2: float = setting("decay of the second moment", 0.999)
    eps: float = setting("added to the denominator", 1e-8)


@dataclass
class AdamW(Adam):
    """torch's AdamW, fp32 states."""


@dataclass
class AdamW8bit(Adam):
    """bitsandbytes' AdamW, states in 8 bits."""


@dataclass
class PagedAdamW8bit(Adam):
    """bitsandbytes' AdamW, states in 8 bits and paged to host memory when the GPU's is short."""


@dataclass
class PagedAdamW32bit(Adam):
    """bitsandbytes' AdamW, fp32 states, paged to host memory when the GPU's is short."""


@dataclass
class AdEMAMix8bit(Adam):
    """AdEMAMix (arXiv:2409.03137): AdamW with a second, slow average of the gradients; bitsandbytes, in 8 bits."""

    beta3: float = setting("decay of the slow average", 0.9999)
    slow: float = setting("weight of the slow average, the paper's alpha", 5.0)


@dataclass
class Lion8bit(Optimizer):
    """Lion (arXiv:2302.06675), by bitsandbytes in 8 bits: the sign of an average; wants a tenth of AdamW's rate."""

    beta1: float = setting("weight of the average in the step", 0.9)
    beta2: float = setting("decay of the average", 0.99)


@dataclass
class Sgd(Optimizer):
    """Gradient descent with momentum, by torch; wants a far larger rate than AdamW. Decay is added to the gradient."""

    momentum: float = setting("decay of the velocity; 0 keeps none", 0.9)
    nesterov: bool = setting("look ahead along the velocity", False)


@dataclass
class Adafactor(Optimizer):
    """Adafactor (arXiv:1804.04235), by torch: a row and a column of second moments for each matrix."""

    clip: float = setting("largest root mean square of an update before the rate", 1.0)


@dataclass
class Muon(Optimizer):
    """Muon, by torch: orthogonalised momentum for the backbone's matrices; AdamW for heads, embeddings and vectors.

    Updates are scaled to the size of AdamW's (arXiv:2502.16982), so that its learning rates suit.
    """

    momentum: float = setting("decay of the momentum", 0.95)
    beta1: float = setting("of the AdamW part: decay of the first moment", 0.9)
    beta2: float = setting("of the AdamW part: decay of the second moment", 0.999)
    eps: float = setting("of the AdamW part: added to the denominator", 1e-8)


@dataclass
class ScheduleFree(Adam):
    """Schedule-Free AdamW (arXiv:2405.15682): answers with an average of its steps; wants schedule=constant.

    Its rate may be up to ten times AdamW's.
    """

    beta1: float = setting("share of that average in the point where gradients are taken, above 0", 0.9)


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
class InverseSqrt(Schedule):
    """Down with one over the root of the step, never to zero."""


@dataclass
class Wsd(Schedule):
    """Warm up, stay, then down to zero (arXiv:2404.06395)."""

    decay: float = setting("share of all steps spent going down, above 0 and up to 1", 0.2)


@dataclass
class Trainer:
    epochs: float = setting("passes over the training part", 2.0)
    max_steps: int | None = setting("optimizer steps; overrides epochs", None)
    micro_batch: Any = setting(
        "rows per forward pass; auto: the most that fits the device, of those that divide effective_batch", 8
    )
    effective_batch: int = setting("rows per optimizer step; a multiple of micro_batch", 16)
    eval_batch: int | None = setting("rows per forward pass in evaluation; null takes micro_batch", None)
    clip_norm: float | None = setting("largest gradient norm; null does not clip", 1.0)
    validate_every: int | None = setting("steps between validations; null makes five in the run", None)
    best_by: str | None = setting(
        "validation metric that chooses the best step, and ranks sweeps: qwk, token_f5, …; null: the loss", None
    )
    patience: int | None = setting("stop after this many validations without a better one; null never", None)
    log_every: int = setting("steps between writes of their rows to metrics.csv", 10)
    score_test: bool = setting("score the test part, once, at the end", False)
