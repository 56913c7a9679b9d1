"""The backbone's own output layer: a hidden state in, a logit for every token of the vocabulary out."""

from typing import final

import torch
from torch import nn


@final
class OutputLayer:
    """Reads an `lm_head` as transformers does, the cap on its logits included.

    No module: the layer belongs to the backbone, so a head that holds this has no parameters of it.
    """

    def __init__(self, lm_head: nn.Module, softcap: float | None = None) -> None:
        self.lm_head = lm_head
        self.softcap = softcap
        """The bound of Gemma 2's logits (`final_logit_softcapping`); None for no bound."""

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] of hidden states [..., H]: in fp32, the product in the type of the weights."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits: torch.Tensor = self.lm_head(hidden.to(next(self.lm_head.parameters()).dtype)).float()
            if self.softcap is None:
                return logits
            return (logits / self.softcap).tanh() * self.softcap
