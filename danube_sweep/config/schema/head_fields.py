"""Fields of every head. Each head is a file of head/kinds/."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from danube_sweep.config.schema.fields import setting
from danube_sweep.errors import GuardError

Shape = tuple[int, ...]

HIGHER_IS_BETTER = frozenset(
    {
        "accuracy",
        "macro_f1",
        "micro_f1",
        "auroc",
        "qwk",
        "pearson",
        "spearman",
        "exact_match",
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "token_f1",
        "token_f5",
    }
)
"""The metrics that are to be maximized."""


class Target(Enum):
    """The kind of answer that a head predicts for a row."""

    one = "one"
    """One of the classes, or a probability for each."""
    ordered = "ordered"
    """One of classes that have an order."""
    many = "many"
    """Any of the classes."""
    number = "number"
    words = "words"
    """One of the classes for every word."""
    nothing = "nothing"
    """No label: the text itself."""


_OF_ONE_CLASS = ("log_loss", "accuracy", "macro_f1", "ece", "auroc")

METRICS: dict[Target, tuple[str, ...]] = {
    Target.one: _OF_ONE_CLASS,
    Target.ordered: (*_OF_ONE_CLASS, "qwk"),
    Target.many: ("log_loss", "auroc", "micro_f1", "macro_f1", "exact_match"),
    Target.number: ("mse", "rmse", "mae", "pearson", "spearman"),
    Target.words: (
        "log_loss", "accuracy", "entity_f1", "entity_precision", "entity_recall", "token_f1", "token_f5"
    ),
    Target.nothing: ("log_loss", "perplexity"),
}  # fmt: skip
"""The metrics of an evaluation; the first is the loss and chooses the best step."""


class Pooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"


def pooled_width(pooling: Enum, hidden_size: int) -> int:
    """The output width of a pooling over states of width `hidden_size`."""
    wider = {"pair": 2 * hidden_size + 2, "answer": hidden_size + 1, "last_mean": 2 * hidden_size}
    return wider.get(pooling.value, hidden_size)


def pooler_shapes(pooling: Enum, hidden_size: int) -> list[Shape]:
    """The shapes of a pooling's own weights."""
    return [(hidden_size,)] if pooling.value == "attention" else []


@dataclass
class Head:
    """The network that turns hidden states into the answer.

    `target`: the kind of answer. `passes`: sequences that it reads per row. `reads_lm_head`: whether it reads the
    backbone's own output layer. `cued`: whether a sequence ends by asking for the answer. `compares`: whether it needs
    two answers in a row.
    """

    target: ClassVar[Target] = Target.one
    passes: ClassVar[int] = 1
    reads_lm_head: ClassVar[bool] = False
    cued: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    symmetric: ClassVar[bool] = False
    """Whether exchanging the answers of a row exchanges its answers for them, to the last bit."""

    lr: float | None = setting("learning rate of the head; null uses optimizer.lr", None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of its evaluation."""
        return METRICS[self.target]

    @property
    def predicts_tokens(self) -> bool:
        """Whether it makes logits over the vocabulary at every token."""
        return self.reads_lm_head and self.target is Target.nothing

    def logits_at_once(self, tokens: int) -> int:
        """Of so many predicted tokens, how many have their logits in memory at the same time."""
        return tokens

    @property
    def in_chunks(self) -> bool:
        """Whether it makes logits piece by piece, and again in the backward pass."""
        return self.logits_at_once(2**62) < 2**62

    def check_trial(self, trial: Any) -> None:
        """Raises ConfigError if it does not go with the rest of the trial's Config."""

    def build(self, *, hidden_size: int, classes: list[str], tokenizer: Any, lm_head: Any) -> Any:
        """The head as a module of head.base_head.Head, its weights drawn."""
        raise GuardError(f"{type(self).__name__} has no builder")

    def shapes(self, hidden_size: int, classes: int) -> Sequence[Shape]:
        """The shapes of its weights."""
        raise GuardError(f"nobody knows the weights of {type(self).__name__}")


def objective(target: Target, best_by: str | None) -> str:
    """The validation metric that chooses a trial's best step, and ranks a sweep of it: trainer.best_by, or the loss."""
    return best_by or METRICS[target][0]


@dataclass
class LayeredHead(Head):
    """A head with its own layers."""

    hidden: int | None = setting("width of a hidden layer (GELU) before the last layer; null for none", None)
    dropout: float = setting("dropout before the head's layers, 0 to 1", 0.0)

    def layer_shapes(self, width: int, outputs: int, *, bias: bool = True) -> list[Shape]:
        """The shapes of its layers' weights."""
        inner: list[Shape] = [] if self.hidden is None else [(self.hidden, width), (self.hidden,)]
        last: list[Shape] = [(outputs, self.hidden or width)]
        return [*inner, *last, *([(outputs,)] if bias else [])]

    def pooled_shapes(
        self, pooling: Enum, hidden_size: int, outputs: int, *, own: Sequence[Shape] = (), bias: bool = True
    ) -> list[Shape]:
        """The shapes of a pooling's weights, of the head's `own`, and of its layers' over what the pooling makes."""
        layers = self.layer_shapes(pooled_width(pooling, hidden_size), outputs, bias=bias)
        return [*pooler_shapes(pooling, hidden_size), *own, *layers]


@dataclass
class ClassifierHead(Head):
    label_smoothing: float = setting("share of the label that is spread evenly over the classes, 0 to 1", 0.0)
