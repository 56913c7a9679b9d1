"""Lion with states in 8 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danube_sweep.config.schema import Optimizer, setting
from danube_sweep.optimizer.state_bytes import in_8_bits

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class Lion8bit(Optimizer):
    """Lion (arXiv:2302.06675), by bitsandbytes in 8 bits: steps by the sign of an average."""

    lr: float = setting("peak learning rate: half of AdamW's by default", "${times:${model.lr},0.5}")
    beta1: float = setting("weight of the average in the step", 0.9)
    beta2: float = setting("decay of the average", 0.99)

    def build(self, trained: "TrainedParameters") -> Any:
        from bitsandbytes import optim

        return optim.Lion8bit(trained.groups(), lr=self.lr, betas=(self.beta1, self.beta2))

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return in_8_bits(math.prod(shape), 1)


OPTION = Lion8bit
