"""The next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema import Config, Head, Target, setting
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class LMHead(Head):
    """Next-token prediction."""

    target: ClassVar[Target] = Target.nothing
    reads_lm_head: ClassVar[bool] = True

    chunk: int | None = setting(
        "predicted tokens whose logits exist at a time, which saves memory and costs a product; null makes all at once",
        None,
    )

    def logits_at_once(self, tokens: int) -> int:
        return tokens if self.chunk is None else min(tokens, self.chunk)

    def check_trial(self, trial: Config) -> None:
        require(
            self.chunk is None or self.chunk >= 1, f"head.chunk must be at least 1, got {self.chunk}; null for none"
        )

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.language import LanguageModel

        return LanguageModel(lm_head, self.chunk)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return []


OPTION = LMHead
