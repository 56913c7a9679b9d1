"""A head's own layers."""

from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from danube_sweep.config.schema import LayeredHead
from danube_sweep.head.pooling import INIT_STD


@final
class Layers(nn.Module):
    """Dropout and one linear layer, or with `config.hidden` a layer of that width (GELU, dropout) before it."""

    def __init__(self, width: int, outputs: int, config: LayeredHead, *, bias: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.inner = None if config.hidden is None else _linear(width, config.hidden)
        self.linear = _linear(config.hidden or width, outputs, bias=bias)

    def forward(self, pooled_BH: torch.Tensor) -> torch.Tensor:
        state_BH = self.dropout(pooled_BH)
        if self.inner is not None:
            state_BH = self.dropout(F.gelu(self.inner(state_BH)))
        outputs_BC: torch.Tensor = self.linear(state_BH)
        return outputs_BC


def _linear(width: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(width, outputs, bias=bias)
    nn.init.normal_(linear.weight, std=INIT_STD)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
