"""Another kernel for attention changes nothing but the rounding; which one runs follows a table."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from danube_sweep import lora
from danube_sweep.config.schema import Compute
from danube_sweep.model.attention import WIDENED, WIDENED_TO, choose_attention, use_repeated, widened_attention
from danube_sweep.model.backbone import Backbone, load_backbone

CPU = torch.device("cpu")


def loaded(*overrides: str) -> Backbone:
    config = tiny_config(*overrides)
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=CPU)
    lora.attach(backbone, config.lora, seed=0)
    return backbone


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "phi3", "gemma"])
@pytest.mark.parametrize("padded", [False, True])
def test_repeated_keys_give_the_same_states_and_gradients(family: str, padded: bool) -> None:
    ids_BT = torch.randint(3, 250, (2, 24), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones(2, 24, dtype=torch.bool)
    mask_BT[0, 20:] = not padded
    found = []
    for change in (False, True):
        backbone = loaded(f"model.shape.model_type={family}")
        if change:
            use_repeated(backbone.body)
        states_BTH = backbone.hidden(ids_BT, mask_BT)
        states_BTH.square().mean().backward()
        gradients = {name: one.grad for name, one in backbone.named_parameters() if one.grad is not None}
        found.append((states_BTH.detach(), gradients))
    torch.testing.assert_close(found[1][0][mask_BT], found[0][0][mask_BT])
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient)


def test_on_a_cpu_attention_stays_as_it_is() -> None:
    backbone = loaded()
    choose_attention(backbone.body, Compute.fp32, CPU)
    assert backbone.body.config._attn_implementation == "sdpa"


def heads(tokens: int) -> list[torch.Tensor]:
    """Query [2, 6, T, 32], key and value [2, 2, T, 32] in bf16."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, count, tokens, 32, generator=generator).bfloat16().requires_grad_() for count in (6, 2, 2)]


def seen(tokens: int, window: int | None) -> torch.Tensor | None:
    """The mask [2, 1, T, T] of a padded batch, or of a window; None for causal attention without either."""
    if window is None:
        return None
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril().triu(1 - window)
    return causal[None, None].repeat(2, 1, 1, 1)


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Softmax of scaled products in fp64, [B, T, heads, width]."""
    wide = [one.double().repeat_interleave(6 // one.shape[1], dim=1) for one in (query, key, value)]
    tokens = query.shape[2]
    allowed = torch.ones(tokens, tokens, dtype=torch.bool).tril() if mask is None else mask
    scores = (wide[0] @ wide[1].transpose(2, 3) / 32**0.5).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(dim=-1) @ wide[2]).transpose(1, 2)


def states_and_gradients(attend: Any, tokens: int, window: int | None) -> list[torch.Tensor]:
    given, mask = heads(tokens), seen(tokens, window)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = by_hand(*given, mask) if attend is None else attend(module, *given, mask, scaling=32**-0.5)[0]
    out.double().square().sum().backward()
    return [out.detach(), *(one.grad for one in given)]


@pytest.mark.parametrize("window", [None, 5, 1000])
@pytest.mark.parametrize("tokens", [1, 16, 130])
def test_widened_attention_is_closer_to_the_formula_than_the_kernel_in_bf16(tokens: int, window: int | None) -> None:
    expected = states_and_gradients(None, tokens, window)
    found = states_and_gradients(widened_attention, tokens, window)
    usual = states_and_gradients(sdpa_attention_forward, tokens, window)
    for one, other, wanted in zip(found, usual, expected, strict=True):
        assert one.dtype is torch.bfloat16
        off, as_before = ((made.double() - wanted.double()).norm() for made in (one, other))
        assert off <= 1.05 * as_before + 1e-4
        assert off <= 0.01 * wanted.double().norm() + 1e-4


def test_rows_longer_than_the_table_s_use_the_kernel_of_torch() -> None:
    longest = WIDENED_TO["cpu", Compute.bf16]
    for tokens, same in ((longest, False), (longest + 1, True)):
        found = states_and_gradients(widened_attention, tokens, None)
        usual = states_and_gradients(sdpa_attention_forward, tokens, None)
        assert all(map(torch.equal, found, usual)) is same


def test_a_backbone_in_bf16_on_a_cpu_widens_its_attention() -> None:
    backbone = loaded("precision=fp32", "precision.compute=bf16")
    assert backbone.body.config._attn_implementation == WIDENED
    flat = tiny_config("precision=fp32", "precision.compute=bf16", "data.layout=flat")
    body = load_backbone(flat.model, flat.precision, with_lm_head=False, device=CPU, flat=True).body
    assert body.config._attn_implementation == f"flat_{WIDENED}"
