"""AdamW without a schedule, by the package schedulefree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema import Adam, Config, Constant, schedule_name, setting

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class ScheduleFree(Adam):
    """Schedule-Free AdamW (arXiv:2405.15682): answers with an average of its steps; wants schedule=constant.

    Its rate may be up to ten times AdamW's.
    """

    by_element: ClassVar[bool] = True

    beta1: float = setting("share of the average in the point where gradients are computed, above 0", 0.9)

    def check_trial(self, trial: Config) -> None:
        require(self.beta1 > 0, f"optimizer.beta1 of optimizer=schedulefree must be above 0, got {self.beta1}")
        require(
            isinstance(trial.schedule, Constant),
            f"schedule={schedule_name(trial.schedule)}: optimizer=schedulefree averages its steps instead of lowering "
            "their rate; use schedule=constant, whose warmup it follows",
        )

    def build(self, trained: "TrainedParameters") -> Any:
        from schedulefree import AdamWScheduleFree

        # Its own warm-up stays off: it weighs a step by the rate that it finds, so the schedule's is as good.
        return AdamWScheduleFree(trained.groups(), **self.adam_options)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        return 2 * math.prod(shape) * each

    def updating_bytes(self, gradient_bytes: float) -> float:
        # It updates all tensors together and holds the roots of all second moments.
        return float(gradient_bytes)


OPTION = ScheduleFree
