"""AdamW with states in 8 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danube_sweep.config.schema import Adam
from danube_sweep.optimizer.state_bytes import in_8_bits

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class AdamW8bit(Adam):
    """bitsandbytes' AdamW, states in 8 bits."""

    def build(self, trained: "TrainedParameters") -> Any:
        from bitsandbytes import optim

        return optim.AdamW8bit(trained.groups(), **self.adam_options)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return in_8_bits(math.prod(shape), 2)


OPTION = AdamW8bit
