"""One of classes that have an order.

Axes: B rows, C classes, K = C - 1 thresholds, N examples.
"""

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from danube_sweep.config.schema import OrdinalHead
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Classifies, labels_in
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import Pooler

LEAST = 1e-3
"""The smallest share of rows that two neighbouring thresholds start with between them."""


@final
class Ordinal(Classifies):
    """Cumulative logits (McCullagh 1980): P(class <= k) = sigmoid(threshold_k - score). Log probabilities_BC."""

    def __init__(self, pooler: Pooler, classes: int, config: OrdinalHead) -> None:
        super().__init__(config)
        self.pooler = pooler
        self.layers = Layers(pooler.width, 1, config, bias=False)
        self.lowest = nn.Parameter(torch.zeros(1))
        self.steps_K = nn.Parameter(torch.zeros(classes - 2))

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
        return log_probabilities(steps_K.cumsum(dim=0) - score_B1)


def log_probabilities(logits_BK: torch.Tensor) -> torch.Tensor:
    """Of the classes between rising cumulative logits, log probabilities_BC.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)) loses no digits far from 0.
    """
    below_BK, above_BK = F.logsigmoid(logits_BK), F.logsigmoid(-logits_BK)
    between = below_BK[:, 1:] + above_BK[:, :-1] + torch.log(-torch.expm1(logits_BK[:, :-1] - logits_BK[:, 1:]))
    return torch.cat([below_BK[:, :1], between, above_BK[:, -1:]], dim=1)
