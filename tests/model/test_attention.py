"""Repeating keys and values for every query head changes nothing but the kernel."""

import pytest
import torch
from conftest import tiny_config

from danube_sweep import lora
from danube_sweep.config.schema import Compute
from danube_sweep.model.attention import choose_attention, use_repeated
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
