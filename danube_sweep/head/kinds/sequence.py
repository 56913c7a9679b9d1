"""One of the classes, for one text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from danube_sweep.config.schema import ClassifierHead, LayeredHead, Pooling, setting
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class SequenceHead(ClassifierHead, LayeredHead):
    pooling: Pooling = setting(
        "how token states become one vector: last, mean, attention or last_mean (both)", Pooling.last
    )
    bias: bool | None = setting(
        "a bias in the last layer; null means none over the last token alone, as in transformers' own classifiers",
        None,
    )

    @property
    def biased(self) -> bool:
        """Whether the last layer has a bias."""
        alone = self.pooling is Pooling.last and self.hidden is None
        return not alone if self.bias is None else self.bias

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.one_class import Classifier
        from danube_sweep.head.pooling import Pooler

        pooler = Pooler(self.pooling, hidden_size)
        return Classifier(pooler, Layers(pooler.width, len(classes), self, bias=self.biased), self)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return self.pooled_shapes(self.pooling, hidden_size, classes, bias=self.biased)


OPTION = SequenceHead
