"""The next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.schema import Head, Target
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class LMHead(Head):
    """Next-token prediction."""

    target: ClassVar[Target] = Target.nothing
    reads_lm_head: ClassVar[bool] = True

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.language import LanguageModel

        return LanguageModel(lm_head)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return []


OPTION = LMHead
