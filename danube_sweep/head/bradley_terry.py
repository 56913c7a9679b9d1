"""Two answers scored by the same network, each in its own pass; the scores decide the winner or a tie.

Axes: B rows, C classes (A, B and, where there are ties, tie).
"""

import math
from typing import Any, final

import torch
from torch import nn

from danube_sweep.config.schema import ClassifierHead
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Classifies, labels_in
from danube_sweep.head.formulas import preference_log_probabilities
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import AnswerPooler, Pooler

LEAST, MOST = 0.01, 0.9
"""The share of ties that training may start from."""


@final
class BradleyTerry(Classifies):
    """Log probabilities_BC; exchanging the answers exchanges A's and B's, to the last bit. `tie` is learned."""

    def __init__(
        self, pooler: Pooler | AnswerPooler, layers: Layers, config: ClassifierHead, *, classes: int, ties: str
    ) -> None:
        super().__init__(config)
        self.pooler, self.layers, self.ties = pooler, layers, ties
        self.tie = nn.Parameter(torch.zeros(())) if classes > 2 else None

    def last_layers(self) -> list[dict[str, Any]]:
        return [{"kind": "bradley_terry", "ties": self.ties, "weights": [] if self.tie is None else ["tie"]}]

    def start(self, train: Encoded) -> None:
        """Of equal answers, as many are ties as in the training rows."""
        if self.tie is None:
            return
        share = min(max(float(labels_in(train)[:, 2].mean()), LEAST), MOST)
        odds = 2 * share / (1 - share)  # of a tie, where A and B weigh 1 each
        threshold = math.log((1 + share) / (1 - share))
        start = math.log(odds) if self.ties == "davidson" else math.log(math.expm1(threshold))
        nn.init.constant_(self.tie, start)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        scores_2B = self.layers(self.pooler(hidden_BTH.float(), batch)).view(2, -1)
        return preference_log_probabilities(scores_2B[0] - scores_2B[1], self.tie, self.ties)

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return output.exp()
