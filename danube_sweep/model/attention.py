"""Attention where torch's choice of a kernel is slow: the choice follows a fixed table, never a clock."""

from types import SimpleNamespace
from typing import Any, final

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from danube_sweep.config.schema import Compute

REPEATED = "sdpa_repeated"
WIDENED = "sdpa_widened"

WIDENED_TO: dict[tuple[str, Compute], int] = {("cpu", Compute.bf16): 512}
"""Device and compute type -> the most tokens of a row whose attention is computed in fp32.

torch's bf16 kernel for CPUs takes up to ten times as long as its fp32 kernel for short rows, most of it in the backward
pass. From some 512 tokens on it is the faster one where bf16 is native (docs/decisions/032).
"""


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


def widened_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA attention on a CPU, computed in fp32 for rows that the table calls short.

    It keeps the same tensors for the backward pass, in their own type.
    """
    if not _is_short(query, key, value, more):
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **more)
        return result
    stated = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if stated is None else stated
    causal = bool(causal) and mask is None and query.shape[2] > 1
    if mask is not None:  # as transformers has it
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        if mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    out = _Widened.apply(query, key, value, mask, causal, more.get("scaling"))  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


def _is_short(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, more: dict[str, Any]) -> bool:
    # What the kernel does not take goes torch's own way: dropout, a bias or cap of scores, values of another width.
    own = any(more.get(name) for name in ("dropout", "softcap")) or more.get("position_bias") is not None
    alike = query.shape[2] == key.shape[2] and query.shape[3] == value.shape[3]
    short = query.shape[2] <= WIDENED_TO["cpu", Compute.bf16]
    return short and alike and not own and query.dtype is torch.bfloat16


@final
class _Widened(torch.autograd.Function):
    """torch's kernel for CPUs in fp32, forward and backward; what is kept between them stays in 16 bits."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float | None,
    ) -> torch.Tensor:
        wide = None if mask is None else mask.float()
        found, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query.float(), key.float(), value.float(), 0.0, causal, attn_mask=wide, scale=scale
        )
        out: torch.Tensor = found.to(query.dtype)
        ctx.causal, ctx.scale = causal, scale
        ctx.save_for_backward(query, key, value, mask, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, mask, out, logsumexp = ctx.saved_tensors
        wide = None if mask is None else mask.float()
        given = [one.float() for one in (gradient, query, key, value, out)]
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *given, logsumexp, 0.0, ctx.causal, attn_mask=wide, scale=ctx.scale
        )
        return *(one.to(query.dtype) for one in found), None, None, None


def choose_attention(model: PreTrainedModel, compute: Compute, device: torch.device) -> None:
    """Puts another attention in place where torch's choice for the device and the compute type is slow.

    `repeated_attention` where a GPU has no kernel for grouped keys; `widened_attention` where WIDENED_TO has a length.
    """
    if model.config._attn_implementation != "sdpa":
        return
    if (device.type, compute) in WIDENED_TO:
        _use(model, WIDENED, widened_attention)
    elif device.type == "cuda" and (compute is Compute.fp32 or torch.cuda.get_device_capability(device) < (8, 0)):
        use_repeated(model)


def use_repeated(model: PreTrainedModel) -> None:
    """Makes a model that uses SDPA attention repeat its keys and values."""
    _use(model, REPEATED, repeated_attention)


def _use(model: PreTrainedModel, name: str, attend: Any) -> None:
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)
