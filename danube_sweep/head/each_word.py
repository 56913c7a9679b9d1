"""A class for every word.

Axes: B rows, T tokens, H hidden width, P words of a batch, N words of a part, C classes.
"""

from typing import ClassVar, final

import numpy as np
import torch

from danube_sweep.config.schema import ClassifierHead
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Classifies
from danube_sweep.head.head_layers import Layers

LEAST = 1e-4
"""The smallest share of words that a class starts with."""


@final
class TokenClassifier(Classifies):
    """The state of every word's last token through the head's layers: logits_PC, word by word."""

    reads_every_word: ClassVar[bool] = True

    def __init__(self, layers: Layers, config: ClassifierHead) -> None:
        super().__init__(config)
        self.layers = layers

    def start(self, train: Encoded) -> None:
        """Rare classes start rare: most words are not entities."""
        counts_C = np.bincount(_words(train)[:, 2], minlength=self.layers.linear.out_features)
        with torch.no_grad():
            self.layers.linear.bias.copy_(torch.from_numpy(counts_C / counts_C.sum()).clamp(min=LEAST).log())

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        words_P3 = _of(batch)
        logits_PC: torch.Tensor = self.layers(hidden_BTH[words_P3[:, 0], words_P3[:, 1]].float())
        return logits_PC


def _of(batch: Batch) -> torch.Tensor:
    assert batch.words_P3 is not None
    return batch.words_P3


def _words(part: Encoded) -> np.ndarray:
    assert part.words is not None
    return np.concatenate(part.words)
