"""AdamW with states in 8 bits that may lie in host memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.schema import Adam
from danube_sweep.optimizer.state_bytes import in_8_bits

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class PagedAdamW8bit(Adam):
    """bitsandbytes' AdamW, states in 8 bits and paged to host memory when the GPU's is short."""

    paged: ClassVar[bool] = True

    def build(self, trained: "TrainedParameters") -> Any:
        from bitsandbytes import optim

        return optim.PagedAdamW8bit(trained.groups(), **self.adam_options)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return in_8_bits(math.prod(shape), 2)


OPTION = PagedAdamW8bit
