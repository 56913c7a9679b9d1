"""A number.

Axes: B rows, N examples.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch.nn import functional as F

from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import GuardError
from danube_sweep.head.base_head import Head, labels_in, labels_of, weighted_mean
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import Pooler

LOSSES: dict[str, Callable[..., torch.Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


@final
class Regression(Head):
    """The number less the training rows' mean, in their standard deviations: standardised_B1. Answers are numbers."""

    def __init__(self, pooler: Pooler, layers: Layers, *, loss: str) -> None:
        super().__init__()
        self.pooler, self.layers, self.kind = pooler, layers, loss
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("deviation", torch.ones(1))

    def last_layers(self) -> list[dict[str, Any]]:
        return [{"kind": "number", "weights": ["deviation", "mean"]}]

    def start(self, train: Encoded) -> None:
        numbers_N = labels_in(train).double()
        deviation = float(numbers_N.std(unbiased=False))
        self.get_buffer("mean").fill_(float(numbers_N.mean()))
        self.get_buffer("deviation").fill_(deviation or 1.0)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        standardised_B1: torch.Tensor = self.layers(self.pooler(hidden_BTH.float(), batch))
        return standardised_B1

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        wanted_B1 = (labels_of(batch) - self.get_buffer("mean")) / self.get_buffer("deviation")
        if self.kind not in LOSSES:
            raise GuardError(f"head=regression has no loss {self.kind}")
        return weighted_mean(lambda reduction: LOSSES[self.kind](output, wanted_B1, reduction=reduction), batch)

    def example_losses(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Squared errors."""
        return (self._numbers(output) - labels_of(batch)).square().squeeze(1)

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return self._numbers(output)

    def _numbers(self, output_B1: torch.Tensor) -> torch.Tensor:
        return output_B1 * self.get_buffer("deviation") + self.get_buffer("mean")
