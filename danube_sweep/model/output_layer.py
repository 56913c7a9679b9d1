"""The backbone's own output layer: a hidden state in, a logit for every token of the vocabulary out."""

from typing import final

import torch
from torch import nn
from transformers import PretrainedConfig

from danube_sweep.errors import ConfigError

SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")
"""Fields by which configs of other families (Granite, Cohere, Falcon-H1) scale their logits."""


def output_layer(lm_head: nn.Module, config: PretrainedConfig, *, capped: bool = True) -> "OutputLayer":
    """The output layer of a model of this config; without its cap unless `capped`.

    Raises ConfigError for a family whose logits are scaled, which is not done here.
    """
    scaled = next((name for name in SCALES if getattr(config, name, None) not in (None, 1, 1.0)), None)
    if scaled is not None:
        raise ConfigError(
            f"head=causal and head=lm do not support the scaled logits of {config.model_type} ({scaled} in its "
            "config.json); "
            "use head=sequence"
        )
    return OutputLayer(lm_head, getattr(config, "final_logit_softcapping", None) if capped else None)


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
