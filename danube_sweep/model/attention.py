"""Attention where torch has no fused kernel for grouped keys: before compute capability 8.0, and in fp32."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from danube_sweep.config.schema import Compute

REPEATED = "sdpa_repeated"


def repeated_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA attention with keys and values repeated for every query head.

    Asked for grouped attention, torch would fall back to its math kernel, which keeps the scores of every head.
    """
    groups = int(module.num_key_value_groups)  # type: ignore[arg-type]
    whole = SimpleNamespace(is_causal=getattr(module, "is_causal", True), training=module.training)
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        whole, query, repeat_kv(key, groups), repeat_kv(value, groups), mask, **more
    )
    return result


def choose_attention(model: PreTrainedModel, compute: Compute, device: torch.device) -> None:
    """Puts `repeated_attention` in place where the device has no kernel for grouped keys in the compute type."""
    if device.type != "cuda" or model.config._attn_implementation != "sdpa":
        return
    if compute is Compute.fp32 or torch.cuda.get_device_capability(device) < (8, 0):
        use_repeated(model)


def use_repeated(model: PreTrainedModel) -> None:
    """Makes a model that uses SDPA attention repeat its keys and values."""
    AttentionInterface.register(REPEATED, repeated_attention)
    AttentionMaskInterface.register(REPEATED, sdpa_mask)
    model.set_attn_implementation(REPEATED)
