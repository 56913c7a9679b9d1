"""Every guard, broken on purpose."""

import itertools
from collections.abc import Callable

import pytest
import torch
from conftest import compose
from torch import nn
from workbench import Parts, build, evaluate, load

from danube_sweep import lora
from danube_sweep.config.schema import Config
from danube_sweep.errors import GuardError
from danube_sweep.training import checks

Tiny = Callable[..., Config]

PRECISIONS = ["fp32", "bf16", "nf4", "nf4_dq", "int8"]


@pytest.fixture
def parts(tiny: Tiny) -> Parts:
    return build(tiny("precision=nf4", "head=sequence", "head.pooling=attention"))


def train_once(parts: Parts) -> None:
    parts.loss(parts.batch([0, 1])).backward()


def every_parameter(parts: Parts) -> dict[str, nn.Parameter]:
    return {**parts.adapter, **dict(parts.head.named_parameters())}


# ------------------------------------------------------------------------------------------------------------ intact


REFUSED = {("full", "nf4"), ("full", "nf4_dq"), ("full", "int8"), ("dora", "int8")}
"""By the config itself."""


@pytest.mark.parametrize(
    ("adapter", "precision"),
    [pair for pair in itertools.product(["lora", "dora", "none", "full"], PRECISIONS) if pair not in REFUSED],
)
def test_an_intact_trial_passes_every_guard(tiny: Tiny, precision: str, adapter: str) -> None:
    parts = build(tiny(f"precision={precision}", f"lora={adapter}"))
    before = checks.frozen_digest(parts.backbone)
    checks.check_precision(parts.backbone)
    checks.check_trainable(parts.config.lora, parts.adapter, parts.head)
    checks.check_train_mode(parts.backbone)
    with checks.compute_checked(parts.backbone):
        train_once(parts)
    checks.check_gradients(every_parameter(parts))
    torch.optim.SGD(every_parameter(parts).values(), lr=1.0).step()
    evaluate(parts.backbone, parts.head, parts.prepared.parts["validation"], batch_rows=4, pad_id=0)
    checks.check_train_mode(parts.backbone)
    checks.check_frozen(before, parts.backbone)


# ------------------------------------------------------------------------------------------------------------ broken


@pytest.mark.parametrize("place", ["layers.1", "layers.0.self_attn.q_proj.lora_A.default", ""])
def test_a_module_left_in_eval_mode(parts: Parts, place: str) -> None:
    parts.backbone.body.get_submodule(place).training = False
    with pytest.raises(GuardError, match=f"{place or 'the backbone'} is in eval mode while it trains"):
        checks.check_train_mode(parts.backbone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_trainable(parts: Parts, dtype: torch.dtype) -> None:
    name = next(iter(parts.adapter))
    parts.adapter[name].data = parts.adapter[name].data.to(dtype)
    with pytest.raises(GuardError, match=f"{name} trains in {dtype}, not in fp32"):
        checks.check_trainable(parts.config.lora, parts.adapter, parts.head)


def test_a_half_precision_head(parts: Parts) -> None:
    parts.head.layers.linear.bfloat16()
    with pytest.raises(GuardError, match=r"the head's layers\.linear\.weight is torch\.bfloat16, not fp32"):
        checks.check_trainable(parts.config.lora, parts.adapter, parts.head)


def test_a_quantised_head(parts: Parts) -> None:
    import bitsandbytes as bnb

    parts.head.layers.linear = bnb.nn.Linear4bit(64, 3).to("cpu")
    with pytest.raises(GuardError, match="the head's layers"):
        checks.check_trainable(parts.config.lora, parts.adapter, parts.head)


def test_a_parameter_without_a_gradient(parts: Parts) -> None:
    train_once(parts)
    name = next(reversed(every_parameter(parts)))
    every_parameter(parts)[name].grad = None
    with pytest.raises(GuardError, match=f"{name} got no gradient"):
        checks.check_gradients(every_parameter(parts))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_changed_bit_of_a_frozen_weight(tiny: Tiny, precision: str) -> None:
    parts = build(tiny(f"precision={precision}", "lora.targets=qv"))
    before = checks.frozen_digest(parts.backbone)
    for weight in ("layers.1.mlp.down_proj", "embed_tokens", "norm"):
        stored = parts.backbone.body.get_submodule(weight).weight.data.view(torch.uint8).flatten()
        stored[0] ^= 1
        with pytest.raises(GuardError, match="the frozen backbone's weights changed while training"):
            checks.check_frozen(before, parts.backbone)
        stored[0] ^= 1
        checks.check_frozen(before, parts.backbone)


@pytest.mark.parametrize("precision", ["nf4", "nf4_dq", "int8"])
def test_a_changed_scale_of_a_quantised_weight(tiny: Tiny, precision: str) -> None:
    parts = build(tiny(f"precision={precision}"))
    before = checks.frozen_digest(parts.backbone)
    weight = parts.backbone.body.layers[0].mlp.down_proj.base_layer.weight
    scale = weight.SCB if precision == "int8" else weight.quant_state.absmax
    scale.view(torch.uint8).flatten()[0] ^= 1
    with pytest.raises(GuardError, match="the frozen backbone's weights changed while training"):
        checks.check_frozen(before, parts.backbone)


def test_a_frozen_weight_turned_into_another_type(tiny: Tiny) -> None:
    parts = build(tiny("precision=bf16"))
    before = checks.frozen_digest(parts.backbone)
    parts.backbone.body.norm.float()
    with pytest.raises(GuardError, match="the frozen backbone's weights changed while training"):
        checks.check_frozen(before, parts.backbone)


def test_a_frozen_output_layer_counts_too(tiny: Tiny) -> None:
    backbone = load(tiny("head=causal", "precision=fp32"))
    before = checks.frozen_digest(backbone)
    assert backbone.lm_head is not None
    backbone.lm_head.weight.data[0, 0] += 1
    with pytest.raises(GuardError):
        checks.check_frozen(before, backbone)


@pytest.mark.parametrize(
    ("loaded", "asked", "message"),
    [
        ("fp32", "nf4", "is a Linear, asked for was Linear4bit"),
        ("nf4", "fp32", "is a Linear4bit, asked for was Linear"),
        ("nf4", "int8", "is a Linear4bit, asked for was Linear8bitLt"),
        ("fp32", "bf16", r"the embeddings are torch\.float32, asked for was torch\.bfloat16"),
        ("nf4", "nf4 precision.compute=fp32", r"the embeddings are torch\.bfloat16, asked for was torch\.float32"),
    ],
)
@pytest.mark.usefixtures("bf16_host")
def test_another_storage_than_asked_for(tiny: Tiny, loaded: str, asked: str, message: str) -> None:
    backbone = load(tiny(f"precision={loaded}"))
    lora.attach(backbone, tiny().lora, seed=0)
    backbone.precision = compose(f"precision={asked}".split()).precision
    with pytest.raises(GuardError, match=message):
        checks.check_precision(backbone)


def test_a_single_layer_in_another_storage(tiny: Tiny) -> None:
    backbone = load(tiny("precision=nf4"))
    backbone.body.layers[1].mlp.up_proj = nn.Linear(64, 128)
    with pytest.raises(GuardError, match=r"layers\.1\.mlp\.up_proj is a Linear, asked for was Linear4bit"):
        checks.check_precision(backbone)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.usefixtures("bf16_host")
def test_another_compute_type_than_asked_for(tiny: Tiny, precision: str) -> None:
    parts = build(tiny(f"precision={precision}", "lora=none"))  # an adapter keeps the type by itself
    batch = parts.batch([0, 1])
    with (
        pytest.raises(GuardError, match=r"computes in torch\.float32, asked for was torch\.bfloat16"),
        checks.compute_checked(parts.backbone),
    ):
        parts.backbone.body.float()(input_ids=batch.input_ids_BT)  # without the context of `Backbone.hidden`


def test_the_compute_guard_takes_its_hook_away(parts: Parts) -> None:
    before = sum(len(layer._forward_hooks) for layer in parts.backbone.body.modules())
    with checks.compute_checked(parts.backbone):
        train_once(parts)
    assert sum(len(layer._forward_hooks) for layer in parts.backbone.body.modules()) == before


def test_ranks_are_compared_in_every_element_of_an_adapter() -> None:
    weights = {"lora_A": nn.Parameter(torch.zeros(3 * checks.SAMPLE))}
    sampled, whole = (checks._digest(weights.items(), whole=many) for many in (checks.SAMPLE, checks.WHOLE))
    with torch.no_grad():
        weights["lora_A"][1] = 1
    assert checks._digest(weights.items()) == sampled  # of a tensor this long
    assert checks._digest(weights.items(), whole=checks.WHOLE) != whole
