"""Which of two answers people prefer, or a tie."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from danube_sweep.config.schema import ClassifierHead, LayeredHead, Pooling, setting
from danube_sweep.config.schema.head_fields import Shape


class PairPooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"
    pair = "pair"


@dataclass
class PreferenceHead(ClassifierHead, LayeredHead):
    compares: ClassVar[bool] = True

    pooling: PairPooling = setting(
        "pair (tokens and length of each answer), last, mean, attention or last_mean", PairPooling.pair
    )

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.one_class import Classifier
        from danube_sweep.head.pooling import PairPooler, Pooler

        paired = self.pooling is PairPooling.pair
        pooler = PairPooler(hidden_size) if paired else Pooler(Pooling(self.pooling.value), hidden_size)
        return Classifier(pooler, Layers(pooler.width, len(classes), self), self)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return self.pooled_shapes(self.pooling, hidden_size, classes)


OPTION = PreferenceHead
