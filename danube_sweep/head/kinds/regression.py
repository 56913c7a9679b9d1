"""A number."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from danube_sweep.config.schema import LayeredHead, Pooling, Target, setting
from danube_sweep.config.schema.head_fields import Shape


class RegressionLoss(Enum):
    mse = "mse"
    mae = "mae"
    huber = "huber"


@dataclass
class RegressionHead(LayeredHead):
    """A number; training standardises it."""

    target: ClassVar[Target] = Target.number

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)
    loss: RegressionLoss = setting("loss on the standardised number: mse, mae or huber", RegressionLoss.mse)

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.pooling import Pooler
        from danube_sweep.head.single_number import Regression

        pooler = Pooler(self.pooling, hidden_size)
        return Regression(pooler, Layers(pooler.width, 1, self), loss=self.loss.value)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return self.pooled_shapes(self.pooling, hidden_size, 1)


OPTION = RegressionHead
