"""Adafactor, by torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danube_sweep.config.schema import Optimizer, setting
from danube_sweep.optimizer.state_bytes import STEP_BYTES

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class Adafactor(Optimizer):
    """Adafactor (arXiv:1804.04235), by torch: a row and a column of second moments for each matrix."""

    clip: float = setting("largest root mean square of an update before the rate", 1.0)

    def build(self, trained: "TrainedParameters") -> Any:
        import torch

        return torch.optim.Adafactor(trained.groups(), lr=self.lr, d=self.clip)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return (sum(shape) if len(shape) == 2 else math.prod(shape)) * each + STEP_BYTES


OPTION = Adafactor
