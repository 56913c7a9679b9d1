"""Token states into one vector per row or answer.

Axes: B rows, T tokens, H hidden width, K texts of a sequence.
"""

from typing import final

import torch
from torch import nn

from danube_sweep.config.schema import Pooling
from danube_sweep.data.batches import Batch
from danube_sweep.head.formulas import answer_vector, attended, last_state, masked_mean, pair_vector

INIT_STD = 0.02


@final
class Pooler(nn.Module):
    """The last token's state, the mean, both side by side, or a learned attention over the tokens.

    Only the mask marks padding, on either side. `width` is that of the vector.
    """

    def __init__(self, pooling: Pooling, hidden_size: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.width = hidden_size * (2 if pooling is Pooling.last_mean else 1)
        if pooling is Pooling.attention:
            self.query_H = nn.Parameter(torch.randn(hidden_size) * INIT_STD)

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        mask_BT = batch.mask_BT
        match self.pooling:
            case Pooling.last:
                return last_state(hidden_BTH, mask_BT)
            case Pooling.mean:
                return masked_mean(hidden_BTH, mask_BT)
            case Pooling.last_mean:
                return torch.cat([last_state(hidden_BTH, mask_BT), masked_mean(hidden_BTH, mask_BT)], dim=1)
            case Pooling.attention:
                return attended(hidden_BTH, mask_BT, self.query_H)


@final
class PairPooler(nn.Module):
    """The mean over A's tokens and over B's, and how much longer A is: [A - B, |A - B|, l, |l|], width 2H + 2.

    `l` is the difference of the log lengths before truncation, times sqrt(H) to weigh like a vector of width H: a
    mean forgets its length, and the length is the strongest single sign of a preference. An empty mean is zero.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.width = 2 * hidden_size + 2

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        return pair_vector(hidden_BTH, batch.spans_BK2, batch.sizes_BK)


@final
class AnswerPooler(nn.Module):
    """The mean over the last text's tokens, and its log length as `PairPooler` has it: width H + 1."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.width = hidden_size + 1

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        return answer_vector(hidden_BTH, batch.spans_BK2, batch.sizes_BK)
