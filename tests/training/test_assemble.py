"""One assembly of backbone, adapter and head: where plain LoRA goes, and that nothing but the seed decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from workbench import CAUSAL, CPU, Parts, build, save_base

from danube_sweep.config.schema import Config, Init
from danube_sweep.errors import CheckpointError
from danube_sweep.lora import PackedAdapters
from danube_sweep.lora.packed_adapters import PackedLinear
from danube_sweep.training import trained_weights
from danube_sweep.training.assemble import AssembledModel, assemble, load_base
from danube_sweep.training.prepare import prepare

Tiny = Callable[..., Config]


def assembled(config: Config, *, by_peft: bool) -> tuple[Parts, PackedAdapters]:
    prepared, backbone = prepare(config), load_base(config, CPU)
    adapters = PackedAdapters(backbone)
    given: dict[str, Any] = {"classes": prepared.classes, "tokenizer": prepared.tokenizer}
    model = assemble(config, backbone, adapters=None if by_peft else adapters, **given)
    return Parts(prepared, model), adapters


def layers(model: AssembledModel, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in model.backbone.body.modules())


@pytest.mark.parametrize(
    ("overrides", "packed"),
    [(["lora=lora"], True), (["lora=dora"], False), (["lora=none"], False), (["lora=full"], False)],
)
def test_plain_lora_is_packed_and_every_other_adapter_is_the_backbones(
    tiny: Tiny, overrides: list[str], packed: bool
) -> None:
    config = tiny("precision=fp32", *overrides)
    model = assembled(config, by_peft=False)[0].model
    assert (model.packed is not None) is packed
    assert layers(model, BaseTunerLayer) == (14 if overrides == ["lora=dora"] else 0)
    assert assembled(config, by_peft=True)[0].model.packed is None


def test_a_packed_adapter_answers_as_peft_does_with_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("precision=fp32", "lora.rslora=true")
    parts, adapters = assembled(config, by_peft=False)
    assert parts.model.packed is not None
    adapters.put_alone(parts.model.packed)
    assert layers(parts.model, PackedLinear) == 14
    with torch.no_grad():
        for parameter in parts.adapter.values():
            parameter.normal_(std=0.05)
    trained_weights.save_trained(tmp_path, parts.model)
    plain, _ = assembled(config, by_peft=True)
    trained_weights.load_trained(tmp_path, plain.model)
    batch = parts.batch([0, 1, 2])
    assert (parts.loss(batch) - build(config).loss(batch)).abs() > 1e-3
    torch.testing.assert_close(parts.loss(batch), plain.loss(batch), rtol=1e-6, atol=1e-6)


def test_adapter_and_head_follow_from_the_seed_alone(tiny: Tiny) -> None:
    first, again, other = (
        assembled(tiny("precision=fp32", "head=sequence", *more), by_peft=False)[0].model.parameters
        for more in ([], ["optimizer=sgd", "data.order_seed=4"], ["seed=1"])
    )
    assert first.keys() == again.keys() == other.keys() and "head.layers.linear.weight" in first
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    assert not torch.equal(first["head.layers.linear.weight"], other["head.layers.linear.weight"])


def test_other_weights_take_the_place_of_the_models_own(tiny: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    drawn = save_base(tiny("model.init_seed=7"), base)
    config = tiny("precision=fp32")
    own, given = load_base(config, CPU), load_base(config, CPU, weights=tiny(f"model.path={base}").model)
    embedding = drawn.get_input_embeddings().weight
    assert torch.equal(given.body.get_input_embeddings().weight, embedding)
    assert not torch.equal(own.body.get_input_embeddings().weight, embedding)
    assert config.model.init is Init.auto and config.model.path is None


def test_an_adapter_of_another_shape_is_not_loaded(tiny: Tiny, tmp_path: Path) -> None:
    small, _ = assembled(tiny("precision=fp32", "lora.rank=2"), by_peft=False)
    trained_weights.save_trained(tmp_path, small.model)
    large, _ = assembled(tiny("precision=fp32", "lora.rank=4"), by_peft=False)
    with pytest.raises(CheckpointError, match="does not fit"):
        trained_weights.load_trained(tmp_path, large.model)


def test_full_training_has_a_tied_output_layer_once_and_loads_it_again(tiny: Tiny, tmp_path: Path) -> None:
    model = build(tiny("precision=fp32", "lora=full", "model.shape.model_type=qwen2", *CAUSAL)).model
    lm_head = model.backbone.lm_head
    assert lm_head is not None and lm_head.weight is model.backbone.body.get_input_embeddings().weight
    trained = [id(one) for one in model.adapter.values()]
    assert len(trained) == len(set(trained)) and id(lm_head.weight) in trained
    trained_weights.save_trained(tmp_path, model)
    before = lm_head.weight.detach().clone()
    with torch.no_grad():
        lm_head.weight.zero_()
    trained_weights.load_trained(tmp_path, model)
    assert torch.equal(lm_head.weight, before)
