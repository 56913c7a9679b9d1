"""Adafactor, by transformers."""

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
    """Adafactor (arXiv:1804.04235), by transformers: a row and a column of second moments for each matrix.

    Its steps are not scaled by a parameter's own size: LoRA's B starts at 0, and would hardly move.
    """

    clip: float = setting("largest root mean square of an update, before the learning rate", 1.0)

    def build(self, trained: "TrainedParameters") -> Any:
        from transformers.optimization import Adafactor as FactoredMoments

        absolute: dict[str, Any] = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        return FactoredMoments(trained.groups(), lr=self.lr, clip_threshold=self.clip, **absolute)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        # Besides the moments, the root mean square of the parameter.
        moments = sum(shape) if len(shape) == 2 else math.prod(shape)
        return moments * each + STEP_BYTES


OPTION = Adafactor
