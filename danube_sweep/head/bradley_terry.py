"""Two answers scored by the same network, each in a pass of its own; the scores say who wins, or that it is a tie.

Axes: B rows, C classes (A, B and, where there are ties, tie).
"""

import math
from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from danube_sweep.config.schema import BradleyTerryHead, Ties
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Classifies, labels_in
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import AnswerPooler, Pooler

LEAST, MOST = 0.01, 0.9
"""The share of ties that training may start from."""


@final
class BradleyTerry(Classifies):
    """Log probabilities_BC; exchanging the answers exchanges A's and B's, to the last bit.

    With d the difference of the scores, Davidson (1970): A, B and tie weigh exp(d/2), exp(-d/2) and exp(t). Rao and
    Kupper (1967): A wins with sigmoid(d - t), B with sigmoid(-d - t), and else it is a tie; t > 0. t is learned.
    """

    def __init__(self, pooler: Pooler | AnswerPooler, classes: int, config: BradleyTerryHead) -> None:
        super().__init__(config)
        self.pooler, self.ties = pooler, config.ties
        self.layers = Layers(pooler.width, 1, config, bias=False)
        self.tie = nn.Parameter(torch.zeros(())) if classes > 2 else None

    def start(self, train: Encoded) -> None:
        """Of equal answers, as many are ties as in the training rows."""
        if self.tie is None:
            return
        share = min(max(float(labels_in(train)[:, 2].mean()), LEAST), MOST)
        odds = 2 * share / (1 - share)  # of a tie, where A and B weigh 1 each
        threshold = math.log((1 + share) / (1 - share))
        start = math.log(odds) if self.ties is Ties.davidson else math.log(math.expm1(threshold))
        nn.init.constant_(self.tie, start)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        scores_2B = self.layers(self.pooler(hidden_BTH.float(), batch)).view(2, -1)
        return log_probabilities(scores_2B[0] - scores_2B[1], self.tie, self.ties)

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return output.exp()


def log_probabilities(difference_B: torch.Tensor, tie: torch.Tensor | None, ties: Ties) -> torch.Tensor:
    """What the difference of the scores says, log probabilities_BC; `tie` is the learned number, None for no ties."""
    if tie is None:
        return torch.stack([F.logsigmoid(difference_B), F.logsigmoid(-difference_B)], dim=1)
    match ties:
        case Ties.davidson:
            half_B = difference_B / 2
            total_B = torch.logaddexp(torch.logaddexp(half_B, -half_B), tie)
            return torch.stack([half_B - total_B, -half_B - total_B, tie - total_B], dim=1)
        case Ties.rao_kupper:
            threshold = F.softplus(tie)
            first_B, second_B = F.logsigmoid(difference_B - threshold), F.logsigmoid(-difference_B - threshold)
            tie_B = torch.expm1(2 * threshold).log() + (first_B + second_B)
            return torch.stack([first_B, second_B, tie_B], dim=1)
