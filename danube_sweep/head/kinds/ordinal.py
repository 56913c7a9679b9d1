"""One of classes that have an order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.schema import (
    ClassifierHead,
    LayeredHead,
    Pooling,
    Target,
    setting,
)
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class OrdinalHead(ClassifierHead, LayeredHead):
    """One of classes with an order (numbers, or data.classes), by cumulative logits (McCullagh 1980)."""

    target: ClassVar[Target] = Target.ordered

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.ordered_classes import Ordinal
        from danube_sweep.head.pooling import Pooler

        pooler = Pooler(self.pooling, hidden_size)
        return Ordinal(pooler, Layers(pooler.width, 1, self, bias=False), self, classes=len(classes))

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        thresholds: list[Shape] = [(1,), (classes - 2,)]
        return self.pooled_shapes(self.pooling, hidden_size, 1, own=thresholds, bias=False)


OPTION = OrdinalHead
