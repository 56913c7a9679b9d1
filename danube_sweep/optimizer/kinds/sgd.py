"""Gradient descent, by torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema import Optimizer, setting

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class Sgd(Optimizer):
    """Gradient descent with momentum, by torch; decay is added to the gradient."""

    by_element: ClassVar[bool] = True

    lr: float = setting(
        "peak learning rate: 50 times AdamW's by default (lora=full 20, randlora 8, waveft 5)",
        "${times:${model.lr},${sgd_rate:}}",
    )
    momentum: float = setting("decay of the velocity; 0 for plain gradient descent", 0.9)
    nesterov: bool = setting("look ahead along the velocity", False)

    def check_trial(self, trial: Any) -> None:
        require(
            self.momentum > 0 or not self.nesterov,
            "optimizer.nesterov=true needs optimizer.momentum above 0",
        )

    def build(self, trained: "TrainedParameters") -> Any:
        import torch

        return torch.optim.SGD(trained.groups(), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return math.prod(shape) * each if self.momentum else 0


OPTION = Sgd
