"""AdamW with fp32 states that may lie in host memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.schema import Adam
from danube_sweep.optimizer.state_bytes import FP32

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class PagedAdamW32bit(Adam):
    """bitsandbytes' AdamW, fp32 states, paged to host memory when the GPU's is short."""

    paged: ClassVar[bool] = True

    def build(self, trained: "TrainedParameters") -> Any:
        from bitsandbytes import optim

        return optim.PagedAdamW32bit(trained.groups(), **self.adam_options)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return 2 * math.prod(shape) * FP32


OPTION = PagedAdamW32bit
