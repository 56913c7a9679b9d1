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
EQUAL_ODDS = 5.0
"""The log odds of a tie that equal answers begin with: e^5 is 148 to 1, as nobody prefers one of them with reason."""


@final
class TieFeatures(nn.Module):
    """A number for each row from its pooled answers a and b, which stays when they are exchanged.

    It is linear in [a * b, |a - b|, | log length of a - log length of b |, 1 where the answers are equal]. The first
    three are scaled to weigh alike. Equality is of tokens and sizes, so that equal answers are known for what they are.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width + 2, 1, bias=False)
        nn.init.zeros_(self.linear.weight)  # training begins as with one number

    def start(self, equal: float) -> None:
        """`equal`: the log odds that equality adds before training."""
        with torch.no_grad():
            self.linear.weight[0, -1] = equal

    def forward(self, pooled_2BH: torch.Tensor, batch: Batch) -> torch.Tensor:
        first_BH, second_BH = pooled_2BH
        squares_2B = pooled_2BH.detach().square().mean(dim=2)
        scale = (
            ((squares_2B[0] + squares_2B[1]) / 2).sqrt().clamp(min=1e-6)[:, None]
        )  # the same in both orders, exactly
        lengths_2B = batch.sizes_BK[:, -1].to(pooled_2BH.dtype).log1p().view(2, -1)
        features_BF = torch.cat(
            [
                first_BH * second_BH / scale.square(),
                (first_BH - second_BH).abs() / scale,
                (lengths_2B[0] - lengths_2B[1]).abs()[:, None],
                equal_answers(batch).to(pooled_2BH.dtype)[:, None],
            ],
            dim=1,
        )
        found_B1: torch.Tensor = self.linear(features_BF)
        return found_B1[:, 0]


def equal_answers(batch: Batch) -> torch.Tensor:
    """Whether the two passes of each row read the same: equal_B."""
    ids_2BT = (batch.input_ids_BT * batch.mask_BT).view(2, -1, batch.mask_BT.shape[1])
    masks_2BT = batch.mask_BT.view(2, -1, batch.mask_BT.shape[1])
    sizes_2BK = batch.sizes_BK.view(2, -1, batch.sizes_BK.shape[1])
    same_B = (ids_2BT[0] == ids_2BT[1]).all(dim=1) & (masks_2BT[0] == masks_2BT[1]).all(dim=1)
    return same_B & (sizes_2BK[0] == sizes_2BK[1]).all(dim=1)


@final
class BradleyTerry(Classifies):
    """Log probabilities_BC; exchanging the answers exchanges A's and B's, to the last bit. `tie` is learned."""

    def __init__(
        self,
        pooler: Pooler | AnswerPooler,
        layers: Layers,
        config: ClassifierHead,
        *,
        classes: int,
        ties: str,
        features: TieFeatures | None = None,
    ) -> None:
        super().__init__(config)
        self.pooler, self.layers, self.ties = pooler, layers, ties
        self.tie = nn.Parameter(torch.zeros(())) if classes > 2 else None
        self.features = features

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
        if self.features is not None:
            self.features.start(EQUAL_ODDS)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        pooled_SH = self.pooler(hidden_BTH.float(), batch)
        scores_2B = self.layers(pooled_SH).view(2, -1)
        tie = self.tie
        if self.features is not None and tie is not None:
            tie = tie + self.features(pooled_SH.view(2, -1, pooled_SH.shape[1]), batch)
        return preference_log_probabilities(scores_2B[0] - scores_2B[1], tie, self.ties)

    def answers(self, output: torch.Tensor) -> torch.Tensor | None:
        return output.exp()
