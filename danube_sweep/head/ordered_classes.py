"""One of classes that have an order.

Axes: B rows, C classes, K = C - 1 thresholds, N examples.
"""

from typing import Any, final

import torch
from torch import nn
from torch.nn import functional as F

from danube_sweep.config.schema import ClassifierHead
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Classifies, labels_in
from danube_sweep.head.formulas import ordered_log_probabilities
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import Pooler

LEAST = 1e-3
"""The smallest share of rows that two neighbouring thresholds start with between them."""


@final
class Ordinal(Classifies):
    """Cumulative logits (McCullagh 1980): P(class <= k) = sigmoid(threshold_k - score). Log probabilities_BC."""

    def __init__(self, pooler: Pooler, layers: Layers, config: ClassifierHead, *, classes: int) -> None:
        super().__init__(config)
        self.pooler, self.layers = pooler, layers
        self.lowest = nn.Parameter(torch.zeros(1))
        self.steps_K = nn.Parameter(torch.zeros(classes - 2))

    def last_layers(self) -> list[dict[str, Any]]:
        return [{"kind": "ordinal", "weights": ["lowest", "steps_K"]}]

    def start(self, train: Encoded) -> None:
        """The thresholds of rows that all score 0: the training rows' shares."""
        shares_C = labels_in(train).double().mean(dim=0).clamp(min=LEAST)
        thresholds_K = torch.logit((shares_C / shares_C.sum()).cumsum(dim=0)[:-1])
        steps_K = thresholds_K.diff()
        with torch.no_grad():
            self.lowest.copy_(thresholds_K[:1])
            self.steps_K.copy_(steps_K.expm1().log())  # the inverse of softplus

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        score_B1 = self.layers(self.pooler(hidden_BTH.float(), batch))
        steps_K = torch.cat([self.lowest, F.softplus(self.steps_K)])
        return ordered_log_probabilities(steps_K.cumsum(dim=0) - score_B1)
