"""Token states into one vector per row or answer.

Axes: B rows, T tokens, H hidden width, K texts of a sequence.
"""

from typing import final

import torch
from torch import nn

from danube_sweep.config.schema import Pooling
from danube_sweep.data.batches import Batch

INIT_STD = 0.02


@final
class Pooler(nn.Module):
    """The last token's state, the mean, both side by side, or a learned attention over the tokens.

    Padding is told by the mask and by nothing else, on either side. `width` is that of the vector.
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
                return _last(hidden_BTH, mask_BT)
            case Pooling.mean:
                return _masked_mean(hidden_BTH, mask_BT)
            case Pooling.last_mean:
                return torch.cat([_last(hidden_BTH, mask_BT), _masked_mean(hidden_BTH, mask_BT)], dim=1)
            case Pooling.attention:
                scores_BT = (hidden_BTH @ self.query_H).masked_fill(~mask_BT, float("-inf"))
                return torch.einsum("bt,bth->bh", scores_BT.softmax(dim=1), hidden_BTH)


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
        first_BH1, second_BH1 = (_mean_and_length(hidden_BTH, batch, place) for place in (-2, -1))
        difference_BH1 = first_BH1 - second_BH1
        means_BH, longer_B1 = difference_BH1[:, :-1], difference_BH1[:, -1:]
        return torch.cat([means_BH, means_BH.abs(), longer_B1, longer_B1.abs()], dim=1)


@final
class AnswerPooler(nn.Module):
    """The mean over the last text's tokens, and its log length as `PairPooler` has it: width H + 1."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.width = hidden_size + 1

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        return _mean_and_length(hidden_BTH, batch, -1)


def _last(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    positions_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (positions_T * mask_BT).argmax(dim=1)
    return hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B]


def _mean_and_length(hidden_BTH: torch.Tensor, batch: Batch, text: int) -> torch.Tensor:
    positions_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
    span_B2 = batch.spans_BK2[:, text]
    mask_BT = (positions_T >= span_B2[:, :1]) & (positions_T < span_B2[:, 1:])
    lengths_B = batch.sizes_BK[:, text].to(hidden_BTH.dtype).log1p() * hidden_BTH.shape[2] ** 0.5
    return torch.cat([_masked_mean(hidden_BTH, mask_BT), lengths_B.unsqueeze(1)], dim=1)


def _masked_mean(hidden_BTH: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    weights_BT = mask_BT.to(hidden_BTH.dtype)
    total_BH = torch.einsum("bt,bth->bh", weights_BT, hidden_BTH)
    return total_BH / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)
