"""Heads: from hidden states to the answer. They are fp32 and never quantised.

Axes: B rows, T tokens, H hidden width, C classes, K texts of a record, V vocabulary.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from danube_sweep import extension
from danube_sweep.data.arena import CLASSES
from danube_sweep.data.batches import Batch
from danube_sweep.errors import ConfigError
from danube_sweep.schema import (
    CausalHead,
    ClassifierHead,
    LMHead,
    PairPooling,
    Pooling,
    PreferenceHead,
    SequenceHead,
)
from danube_sweep.schema import Head as HeadConfig

INIT_STD = 0.02
PREFERENCE_WORDS = ["A", "B", "tie"]
"""The label words of arena classes, whose own names all begin alike."""


def needs_lm_head(config: HeadConfig) -> bool:
    """Whether the head reads the backbone's own output layer."""
    return isinstance(config, CausalHead | LMHead)


def build_head(
    config: HeadConfig,
    *,
    hidden_size: int,
    classes: list[str],
    tokenizer: PreTrainedTokenizerBase,
    lm_head: nn.Module | None,
    seed: int,
) -> "Head":
    """The head of a trial, its weights drawn from `seed` alone. Raises ConfigError for label words that clash."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config:
            case SequenceHead():
                pooler = Pooler(config.pooling, hidden_size)
                return Classifier(pooler, hidden_size, len(classes), config)
            case PreferenceHead(pooling=PairPooling.pair):
                return Classifier(PairPooler(), 2 * hidden_size + 2, len(classes), config)
            case PreferenceHead():
                pooler = Pooler(Pooling(config.pooling.value), hidden_size)
                return Classifier(pooler, hidden_size, len(classes), config)
            case CausalHead():
                assert lm_head is not None
                return LabelWords(_word_ids(config.words or _words(classes), classes, tokenizer), lm_head, config)
            case LMHead():
                assert lm_head is not None
                return LanguageModel(lm_head)
            case _:
                given = {"hidden_size": hidden_size, "classes": classes, "tokenizer": tokenizer}
                return extension.build(config, Head, **given)  # type: ignore[type-abstract]


class Head(nn.Module, ABC):
    """`forward` gives the output that `loss` reads; classifiers' output is logits_BC."""

    @abstractmethod
    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor: ...

    @abstractmethod
    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean loss of the batch, each row counted by its weight."""

    @abstractmethod
    def row_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What evaluation reports, one value per row and without label smoothing: losses_B, in nats."""


class Classifies(Head):
    """A head whose output is logits_BC: its loss is their cross entropy."""

    def __init__(self, config: ClassifierHead) -> None:
        super().__init__()
        self.label_smoothing = config.label_smoothing

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = F.cross_entropy(output, _labels(batch), label_smoothing=self.label_smoothing)
        return loss

    def row_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(output, _labels(batch), reduction="none")


def _labels(batch: Batch) -> torch.Tensor:
    assert batch.labels_BC is not None
    return batch.labels_BC


@final
class Classifier(Classifies):
    """Pooled hidden states through one linear layer."""

    def __init__(self, pooler: nn.Module, width: int, classes: int, config: ClassifierHead) -> None:
        super().__init__(config)
        self.pooler = pooler
        self.linear = nn.Linear(width, classes)
        nn.init.normal_(self.linear.weight, std=INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BC: torch.Tensor = self.linear(self.pooler(hidden_BTH.float(), batch))
        return logits_BC


@final
class Pooler(nn.Module):
    """One vector per row: the last token's, the mean, or a learned attention over the tokens.

    Padding is told by the mask and by nothing else, on either side.
    """

    def __init__(self, pooling: Pooling, hidden_size: int) -> None:
        super().__init__()
        self.pooling = pooling
        if pooling is Pooling.attention:
            self.query_H = nn.Parameter(torch.randn(hidden_size) * INIT_STD)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        mask_BT = batch.mask_BT
        match self.pooling:
            case Pooling.last:
                positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
                last_B = (positions_T * mask_BT).argmax(dim=1)
                return hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B]
            case Pooling.mean:
                return _masked_mean(hidden_BTH, mask_BT)
            case Pooling.attention:
                scores_BT = (hidden_BTH @ self.query_H).masked_fill(~mask_BT, float("-inf"))
                return torch.einsum("bt,bth->bh", scores_BT.softmax(dim=1), hidden_BTH)


@final
class PairPooler(nn.Module):
    """The mean over A's tokens and over B's, and how much longer A is: [A - B, |A - B|, l, |l|], width 2H + 2.

    `l` is the difference of the log lengths before truncation, times sqrt(H) to weigh like a vector of width H: a
    mean forgets its length, and the length is the strongest single sign of a preference. An empty mean is zero.
    """

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        positions_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
        spans_BK2 = batch.spans_BK2
        mask_BKT = (positions_T >= spans_BK2[..., :1]) & (positions_T < spans_BK2[..., 1:])
        first, second = spans_BK2.shape[1] - 2, spans_BK2.shape[1] - 1
        difference_BH = _masked_mean(hidden_BTH, mask_BKT[:, first]) - _masked_mean(hidden_BTH, mask_BKT[:, second])
        lengths_BK = batch.sizes_BK.to(difference_BH.dtype).log1p() * difference_BH.shape[1] ** 0.5
        longer_B1 = (lengths_BK[:, first] - lengths_BK[:, second]).unsqueeze(1)
        return torch.cat([difference_BH, difference_BH.abs(), longer_B1, longer_B1.abs()], dim=1)


def _masked_mean(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    weights_BT = mask_BT.to(hidden_BTH.dtype)
    total_BH = torch.einsum("bt,bth->bh", weights_BT, hidden_BTH)
    return total_BH / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)


class _ReadsLmHead(nn.Module):
    # The output layer belongs to the backbone: kept out of this module's own parameters and state.
    def __init__(self, lm_head: nn.Module) -> None:
        super().__init__()
        self._held = (lm_head,)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        (lm_head,) = self._held
        with torch.autocast(hidden.device.type, enabled=False):
            logits: torch.Tensor = lm_head(hidden.to(next(lm_head.parameters()).dtype))
        return logits.float()


@final
class LabelWords(Classifies):
    """The causal LM's own logits of one label word per class, at the last token."""

    def __init__(self, word_ids: list[int], lm_head: nn.Module, config: ClassifierHead) -> None:
        super().__init__(config)
        self.pooler = Pooler(Pooling.last, hidden_size=0)
        self.lm_head = _ReadsLmHead(lm_head)
        self.register_buffer("word_ids_C", torch.tensor(word_ids), persistent=False)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BV: torch.Tensor = self.lm_head(self.pooler(hidden_BTH, batch))
        return logits_BV[:, self.get_buffer("word_ids_C")]


def _words(classes: list[str]) -> list[str]:
    return PREFERENCE_WORDS if classes == CLASSES else classes


def _word_ids(words: list[str], classes: list[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # Each word's first token.
    if len(words) != len(classes):
        raise ConfigError(f"head.words needs {len(classes)} words ({', '.join(classes)}), got {len(words)}")
    ids: dict[int, str] = {}
    for word in words:
        tokens = tokenizer(" " + word.strip(), add_special_tokens=False)["input_ids"]
        meaningful = [token for token in tokens if tokenizer.decode([token]).strip()]
        if not meaningful:
            raise ConfigError(f"head.words: {word!r} has no token of its own; choose another word")
        clash = ids.setdefault(meaningful[0], word)
        if clash != word:
            raise ConfigError(
                f"head.words: {clash!r} and {word!r} begin with the same token; give words that do not, "
                "such as head.words=[A,B,C]"
            )
    if len(ids) != len(words):
        raise ConfigError(f"head.words must differ, got {words}")
    return list(ids)


@final
class LanguageModel(Head):
    """Next-token prediction; the output is logits_PV of the P predicted tokens, row by row."""

    def __init__(self, lm_head: nn.Module) -> None:
        super().__init__()
        self.lm_head = _ReadsLmHead(lm_head)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_PV: torch.Tensor = self.lm_head(hidden_BTH[:, :-1][_predicted(batch)])
        return logits_PV

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = F.cross_entropy(output, batch.input_ids_BT[:, 1:][_predicted(batch)])
        return loss

    def row_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        mask_BT = _predicted(batch)
        losses_P = F.cross_entropy(output, batch.input_ids_BT[:, 1:][mask_BT], reduction="none")
        losses_BT = torch.zeros(mask_BT.shape, device=mask_BT.device).masked_scatter(mask_BT, losses_P)
        return losses_BT.sum(dim=1) / mask_BT.sum(dim=1)


def _predicted(batch: Batch) -> torch.Tensor:
    # True where a token is followed by one to predict.
    return batch.mask_BT[:, 1:] & batch.mask_BT[:, :-1]
