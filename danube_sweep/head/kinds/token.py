"""A class for every word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.schema import ClassifierHead, LayeredHead, Target
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class TokenHead(ClassifierHead, LayeredHead):
    """A class for every word."""

    target: ClassVar[Target] = Target.words

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.each_word import TokenClassifier
        from danube_sweep.head.head_layers import Layers

        return TokenClassifier(Layers(hidden_size, len(classes), self), self)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return self.layer_shapes(hidden_size, classes)


OPTION = TokenHead
