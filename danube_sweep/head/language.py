"""Heads that read the backbone's own output layer: label words, and the next token.

Axes: B rows, T tokens, C classes, V vocabulary, P predicted tokens.
"""

from typing import final

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from danube_sweep.config.schema import ClassifierHead, Pooling
from danube_sweep.data.arena_format import CLASSES
from danube_sweep.data.batches import Batch
from danube_sweep.errors import ConfigError
from danube_sweep.head.base_head import Classifies, Head
from danube_sweep.head.pooling import Pooler
from danube_sweep.model.output_layer import OutputLayer

PREFERENCE_WORDS = ["A", "B", "tie"]
"""The label words of preferences, whose own names all begin alike."""


@final
class LabelWords(Classifies):
    """The causal LM's own logits of one label word per class, at the last token."""

    def __init__(self, word_ids: list[int], output_layer: OutputLayer, config: ClassifierHead) -> None:
        super().__init__(config)
        self.pooler = Pooler(Pooling.last, hidden_size=0)
        self.output_layer = output_layer
        self.register_buffer("word_ids_C", torch.tensor(word_ids), persistent=False)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BV = self.output_layer(self.pooler(hidden_BTH, batch))
        return logits_BV[:, self.get_buffer("word_ids_C")]


def word_ids(chosen: list[str] | None, classes: list[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Each class's word's first token. Raises ConfigError for words that clash or lack a token."""
    words = chosen or (PREFERENCE_WORDS if classes == CLASSES else classes)
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
    """Next-token prediction; the output is logits_PV of the P predicted tokens, row by row.

    With `chunk` the output is the states_PH, and the losses make the logits of so many tokens at a time, again in the
    backward pass: no more of them ever exist.
    """

    def __init__(self, output_layer: OutputLayer, chunk: int | None = None) -> None:
        super().__init__()
        self.output_layer, self.chunk = output_layer, chunk

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        states_PH = hidden_BTH[:, :-1][_predicted(batch)]
        return self.output_layer(states_PH) if self.chunk is None else states_PH

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """All logits_PV of an output at once."""
        return output if self.chunk is None else self.output_layer(output)

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        wanted_P = batch.input_ids_BT[:, 1:][_predicted(batch)]
        if self.chunk is None:
            loss: torch.Tensor = F.cross_entropy(output, wanted_P)
            return loss
        return self._losses(output, wanted_P, self.chunk, "sum").sum() / len(wanted_P)

    def example_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        mask_BT = _predicted(batch)
        wanted_P = batch.input_ids_BT[:, 1:][mask_BT]
        if self.chunk is None:
            losses_P = F.cross_entropy(output, wanted_P, reduction="none")
        else:
            losses_P = self._losses(output, wanted_P, self.chunk, "none")
        losses_BT = torch.zeros(mask_BT.shape, device=mask_BT.device).masked_scatter(mask_BT, losses_P)
        return losses_BT.sum(dim=1) / mask_BT.sum(dim=1)

    def _losses(self, states_PH: torch.Tensor, wanted_P: torch.Tensor, chunk: int, reduction: str) -> torch.Tensor:
        def of_a_chunk(states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            losses: torch.Tensor = F.cross_entropy(self.output_layer(states), wanted, reduction=reduction)
            return losses.reshape(-1)

        pieces = zip(torch.split(states_PH, chunk), torch.split(wanted_P, chunk), strict=True)
        return torch.cat([checkpoint(of_a_chunk, *piece, use_reentrant=False) for piece in pieces])

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return None


def _predicted(batch: Batch) -> torch.Tensor:
    # True where a token is followed by one to predict.
    return batch.mask_BT[:, 1:] & batch.mask_BT[:, :-1]
