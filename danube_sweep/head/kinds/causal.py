"""One of the classes, by the model's own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema import ClassifierHead, Config, setting
from danube_sweep.config.schema.head_fields import Shape


@dataclass
class CausalHead(ClassifierHead):
    reads_lm_head: ClassVar[bool] = True
    cued: ClassVar[bool] = True

    words: list[str] | None = setting("a word per class; null uses the class names, or A, B, tie for preferences", None)

    def check_trial(self, trial: Config) -> None:
        wanted = trial.data.known_classes
        require(
            self.words is None or wanted is None or len(self.words) == wanted,
            f"head.words needs {wanted} words (A better, B better, tie), got {len(self.words or ())}",
        )

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        from danube_sweep.head.language import LabelWords, word_ids

        return LabelWords(word_ids(self.words, classes, tokenizer), lm_head, self)

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        return []


OPTION = CausalHead
