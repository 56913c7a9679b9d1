"""One of the classes."""

from typing import final

import torch

from danube_sweep.config.schema import ClassifierHead
from danube_sweep.data.batches import Batch
from danube_sweep.head.base_head import Classifies
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.pooling import PairPooler, Pooler


@final
class Classifier(Classifies):
    """Pooled hidden states through the head's layers."""

    def __init__(self, pooler: Pooler | PairPooler, layers: Layers, config: ClassifierHead) -> None:
        super().__init__(config)
        self.pooler, self.layers = pooler, layers

    def forward(self, hidden_BTH: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits_BC: torch.Tensor = self.layers(self.pooler(hidden_BTH.float(), batch))
        return logits_BC
