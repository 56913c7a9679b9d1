"""Any of the classes.

Axes: B rows, C classes, N examples.
"""

from typing import final

import torch
from torch.nn import functional as F

from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Head, labels_in, labels_of, weighted_mean
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import Pooler

LEAST = 1e-3
"""The smallest share of rows that a class starts with."""


@final
class Multilabel(Head):
    """A logit for each class: logits_BC. A row's loss is the mean over the classes."""

    def __init__(self, pooler: Pooler, layers: Layers) -> None:
        super().__init__()
        self.pooler, self.layers = pooler, layers

    def start(self, train: Encoded) -> None:
        """Rare classes start rare."""
        shares_C = labels_in(train).double().mean(dim=0).clamp(LEAST, 1 - LEAST)
        with torch.no_grad():
            self.layers.linear.bias.copy_(torch.logit(shares_C))

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BC: torch.Tensor = self.layers(self.pooler(hidden_BTH.float(), batch))
        return logits_BC

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        def loss(reduction: str) -> torch.Tensor:
            return F.binary_cross_entropy_with_logits(output, labels_of(batch), reduction=reduction)

        return weighted_mean(loss, batch)

    def example_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(output, labels_of(batch), reduction="none").mean(dim=1)

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return output.sigmoid()
