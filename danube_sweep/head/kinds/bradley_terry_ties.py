"""Two answers, each scored by itself; the scores say who wins, or that it is a tie."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from danube_sweep.config.schema import ClassifierHead, LayeredHead, Pooling, setting
from danube_sweep.config.schema.head_fields import Shape, pooled_width


class AnswerPooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"
    answer = "answer"


class Ties(Enum):
    davidson = "davidson"
    rao_kupper = "rao_kupper"


class TieTerm(Enum):
    scalar = "scalar"
    features = "features"


@dataclass
class BradleyTerryHead(ClassifierHead, LayeredHead):
    """A score for each answer, read in its own pass; the difference decides the winner."""

    passes: ClassVar[int] = 2
    compares: ClassVar[bool] = True
    symmetric: ClassVar[bool] = True

    pooling: AnswerPooling = setting(
        "answer (tokens and length of the answer), last, mean, attention or last_mean", AnswerPooling.answer
    )
    ties: Ties = setting("rule of ties, with one learned number: davidson (1970) or rao_kupper (1967)", Ties.davidson)

    tie_term: TieTerm = setting(
        "what a tie depends on besides the scores: scalar (one learned number), or features of both answers that do "
        "not change when they are exchanged",
        TieTerm.scalar,
    )

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.bradley_terry import BradleyTerry, TieFeatures
        from danube_sweep.head.head_layers import Layers
        from danube_sweep.head.pooling import AnswerPooler, Pooler

        whole = self.pooling is AnswerPooling.answer
        pooler = AnswerPooler(hidden_size) if whole else Pooler(Pooling(self.pooling.value), hidden_size)
        layers = Layers(pooler.width, 1, self, bias=False)
        features = self.tie_term is TieTerm.features and len(classes) > 2
        ties = TieFeatures(pooler.width) if features else None
        return BradleyTerry(pooler, layers, self, classes=len(classes), ties=self.ties.value, features=ties)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        tie: list[Shape] = [()] if classes > 2 else []
        if classes > 2 and self.tie_term is TieTerm.features:
            tie += [(1, 2 * pooled_width(self.pooling, hidden_size) + 2)]
        return self.pooled_shapes(self.pooling, hidden_size, 1, own=tie, bias=False)


OPTION = BradleyTerryHead
