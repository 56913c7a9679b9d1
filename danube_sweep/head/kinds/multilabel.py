"""Any of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.schema import LayeredHead, Pooling, Target, setting
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class MultilabelHead(LayeredHead):
    """Any of the classes, each by itself."""

    target: ClassVar[Target] = Target.many

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.many_classes import Multilabel
        from danube_sweep.head.pooling import Pooler

        pooler = Pooler(self.pooling, hidden_size)
        return Multilabel(pooler, Layers(pooler.width, len(classes), self))

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return self.pooled_shapes(self.pooling, hidden_size, classes)


OPTION = MultilabelHead
