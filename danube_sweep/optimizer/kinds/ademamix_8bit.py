"""AdEMAMix with states in 8 bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danube_sweep.config.schema import Adam, setting
from danube_sweep.optimizer.state_bytes import in_8_bits

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class AdEMAMix8bit(Adam):
    """AdEMAMix (arXiv:2409.03137): AdamW with a second, slow average of the gradients; bitsandbytes, in 8 bits."""

    beta3: float = setting("decay of the slow average", 0.9999)
    slow: float = setting("weight of the slow average, the paper's alpha", 5.0)

    def build(self, trained: "TrainedParameters") -> Any:
        from bitsandbytes import optim

        options = {**self.adam_options, "betas": (self.beta1, self.beta2, self.beta3), "alpha": self.slow}
        return optim.AdEMAMix8bit(trained.groups(), **options)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return in_8_bits(math.prod(shape), 3)


OPTION = AdEMAMix8bit
