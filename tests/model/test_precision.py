"""How the backbone is stored and computes, and the two traps of 4-bit weights on CPUs with AVX512-BF16."""

from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from conftest import ROOT, compose
from torch import nn
from workbench import CPU, Parts, build, evaluate, load

from danube_sweep.config.schema import Config, Precision, Storage
from danube_sweep.model import precision as precisions
from danube_sweep.model.backbone import load_backbone

Tiny = Callable[..., Config]

pytestmark = pytest.mark.usefixtures("bf16_host")

TABLE: dict[str, tuple[type[nn.Module], torch.dtype, torch.dtype]] = {
    "fp32": (nn.Linear, torch.float32, torch.float32),
    "bf16": (nn.Linear, torch.bfloat16, torch.bfloat16),
    "fp16": (nn.Linear, torch.float16, torch.float16),
    "int8": (bnb.nn.Linear8bitLt, torch.int8, torch.bfloat16),
    "nf4": (bnb.nn.Linear4bit, torch.uint8, torch.bfloat16),
    "nf4_dq": (bnb.nn.Linear4bit, torch.uint8, torch.bfloat16),
    "fp4": (bnb.nn.Linear4bit, torch.uint8, torch.bfloat16),
}
"""Option -> class of the block's linears, type of their weights, type of everything else."""


def precision_of(name: str, *overrides: str) -> Precision:
    return compose([f"precision={name}", "device.types=[fp32,bf16,fp16]", *overrides]).precision


def test_the_table_has_every_option() -> None:
    assert {file.stem for file in (ROOT / "conf" / "precision").glob("*.yaml")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_option_stores_what_its_name_says(tiny: Tiny, name: str) -> None:
    kind, stored, beside = TABLE[name]
    backbone = load_backbone(tiny().model, precision_of(name), with_lm_head=True, device=CPU)
    linears = [layer for layer in backbone.body.modules() if isinstance(layer, nn.Linear)]
    assert len(linears) == 14
    assert all(type(layer) is kind and layer.weight.dtype is stored for layer in linears)
    assert type(backbone.lm_head) is nn.Linear and backbone.lm_head.weight.dtype is beside
    others = [
        value for name, value in backbone.named_parameters() if not any(part in name for part in ("_proj", "lm_head"))
    ]
    assert others and all(value.dtype is beside for value in others)
    assert precisions.linear_kind(backbone.precision) == kind.__name__


@pytest.mark.parametrize(("name", "double"), [("nf4", False), ("nf4_dq", True), ("fp4", False)])
def test_four_bit_weights_are_quantised_as_asked(tiny: Tiny, name: str, double: bool) -> None:
    for layer in load(tiny(f"precision={name}")).body.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            state = layer.weight.quant_state
            assert (state.quant_type, state.nested) == (name[:3], double)
            assert layer.compute_dtype is torch.bfloat16


@pytest.mark.parametrize(("name", "compute"), [("nf4", "fp32"), ("nf4", "fp16"), ("int8", "fp16"), ("fp4", "fp32")])
def test_quantised_storage_keeps_everything_else_in_the_compute_type(name: str, compute: str) -> None:
    precision = precision_of(name, f"precision.compute={compute}")
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[compute]
    assert precisions.weight_dtype(precision) is dtype
    if precision.storage is not Storage.int8:
        assert precisions.quantization_config(precision).bnb_4bit_compute_dtype is dtype


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_nothing_is_quantised_unless_asked(name: str) -> None:
    assert precisions.quantization_config(precision_of(name)) is None


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("nf4", torch.bfloat16)]
)
def test_hidden_states_come_in_the_compute_type(tiny: Tiny, name: str, dtype: torch.dtype) -> None:
    hidden_BTH = load(tiny(f"precision={name}")).hidden(torch.tensor([[1, 5, 6]]), torch.ones(1, 3, dtype=torch.bool))
    assert hidden_BTH.dtype is dtype


# ------------------------------------------------------------------------------------------------------------ int8


def test_a_rows_outliers_do_not_change_another_rows_int8_result(tiny: Tiny) -> None:
    layer = (
        load(tiny("precision=int8")).body.layers[0].mlp.gate_proj.eval()
    )  # on a CPU, training does not quantise inputs
    row, outlier = torch.randn(1, 5, 64, dtype=torch.bfloat16), torch.randn(1, 5, 64, dtype=torch.bfloat16)
    row[..., 7], outlier[..., 7] = 5.0, 80.0
    assert torch.equal(layer(torch.cat([row, outlier]))[:1], layer(row))
    layer.state.threshold = 6.0  # what transformers would take by default
    assert not torch.equal(layer(torch.cat([row, outlier]))[:1], layer(row))


# --------------------------------------------------------------------------------------- the traps of AVX512-BF16

needs_avx512_bf16 = pytest.mark.skipif(
    not (bnb.functional.has_avx512bf16()),
    reason="bitsandbytes repacks 4-bit weights only on CPUs with avx512_bf16 (see /proc/cpuinfo)",
)


def gradients(parts: Parts) -> dict[str, torch.Tensor]:
    for parameter in parts.adapter.values():
        parameter.grad = None
    parts.loss(parts.batch([0, 1, 2, 3])).backward()
    return {name: parameter.grad.clone() for name, parameter in parts.adapter.items() if parameter.grad is not None}


def evaluate_all(parts: Parts) -> Any:
    rows = parts.prepared.parts["validation"]
    return evaluate(parts.backbone, parts.head, rows, batch_rows=4, pad_id=parts.prepared.pad_id)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, value in before.items() if name not in after or not torch.equal(value, after[name])]


@pytest.fixture(params=["nf4", "nf4_dq", "fp4"])
def four_bit(tiny: Tiny, request: pytest.FixtureRequest) -> Config:
    """A trial whose first adapter steps have gradients everywhere, over shapes that the repacking takes."""
    return tiny(f"precision={request.param}")


def open_adapter(parts: Parts) -> Parts:
    # LoRA's B starts at zero and so hides A's gradients.
    with torch.no_grad():
        for name, parameter in parts.adapter.items():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return parts


@needs_avx512_bf16
def test_evaluating_and_saving_change_no_gradient_over_four_bit_weights(four_bit: Config) -> None:
    parts = open_adapter(build(four_bit))
    before = gradients(parts)
    assert len(before) == len(parts.adapter) == 28 and all(value.any() for value in before.values())
    first = evaluate_all(parts)
    assert not changed(before, gradients(parts))
    stored = {name: value.clone() for name, value in parts.backbone.body.state_dict().items()}
    assert not changed(before, gradients(parts))
    assert torch.equal(evaluate_all(parts).losses_N, first.losses_N)
    assert not changed(stored, parts.backbone.body.state_dict())


@needs_avx512_bf16
def test_the_trap_is_real(four_bit: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    # When this fails, bitsandbytes has mended it: `keep_weights_as_loaded` may go, and its cost with it.
    monkeypatch.setattr(precisions, "keep_weights_as_loaded", lambda module: None)
    parts = open_adapter(build(four_bit))
    before = gradients(parts)
    evaluate_all(parts)
    assert len(changed(before, gradients(parts))) > 20


@needs_avx512_bf16
def test_the_trap_of_saving_is_real(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "keep_weights_as_loaded", lambda module: None)
    parts = build(tiny("precision=nf4"))
    stored = {name: value.clone() for name, value in parts.backbone.body.state_dict().items()}
    evaluate_all(parts)
    assert changed(stored, parts.backbone.body.state_dict())


def test_every_four_bit_linear_keeps_its_weights_as_loaded(tiny: Tiny) -> None:
    backbone = load(tiny("precision=nf4"))
    layers = [layer for layer in backbone.body.modules() if isinstance(layer, bnb.nn.Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
