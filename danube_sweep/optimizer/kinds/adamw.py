"""AdamW, by torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.schema import Adam
from danube_sweep.optimizer.state_bytes import STEP_BYTES

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class AdamW(Adam):
    """torch's AdamW, fp32 states."""

    by_element: ClassVar[bool] = True

    def build(self, trained: "TrainedParameters") -> Any:
        import torch

        return torch.optim.AdamW(trained.groups(), **self.adam_options, fused=True)  # a third of the time on a CPU

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return 2 * math.prod(shape) * each + STEP_BYTES


OPTION = AdamW
