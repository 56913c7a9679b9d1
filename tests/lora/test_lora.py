"""What trains, from which numbers it starts, and that plain PEFT loads what is saved."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM
from workbench import CAUSAL, Parts, build, load, save_base

from danube_sweep import lora
from danube_sweep.config.facts.architectures import FAMILIES, TARGET_SETS, target_names
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Model, Precision
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.model.backbone import load_backbone
from danube_sweep.training import trained_weights
from danube_sweep.training.checks import frozen_digest

Tiny = Callable[..., Config]

SHAPES = {
    "q_proj": (64, 64),
    "k_proj": (64, 32),
    "v_proj": (64, 32),
    "o_proj": (64, 64),
    "gate_proj": (64, 128),
    "up_proj": (64, 128),
    "down_proj": (128, 64),
}
"""Module -> its inputs and outputs; the tiny model's heads are 32 wide."""


HEADS = [["head=sequence"], CAUSAL]


def attach(config: Config) -> dict[str, torch.nn.Parameter]:
    return lora.attach(load(config), config.lora, seed=config.seed)


def open_adapter(parts: Parts, std: float = 0.05) -> Parts:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parts.adapter.values():
            parameter.normal_(std=std, generator=generator)
    return parts


# ------------------------------------------------------------------------------------------------------ what trains


@pytest.mark.parametrize(
    ("targets", "precision"),
    [
        *((name, "nf4") for name in (*TARGET_SETS, "down_proj", "[k_proj,up_proj]")),
        *(("all_linear", precision) for precision in ("fp32", "bf16", "int8")),
    ],
)
def test_the_adapter_has_a_pair_of_fp32_matrices_per_target(tiny: Tiny, targets: str, precision: str) -> None:
    trainable = attach(tiny(f"lora.targets={targets}", "lora.rank=3", f"precision={precision}"))
    asked = targets.strip("[]").split(",") if targets.startswith("[") else targets
    names = target_names(asked, FAMILIES["llama"])
    expected = {}
    for layer in (0, 1):
        for name in names:
            block = "self_attn" if name in FAMILIES["llama"].attention else "mlp"
            inputs, outputs = SHAPES[name]
            place = f"model.layers.{layer}.{block}.{name}"
            expected[f"{place}.lora_A.default.weight"] = (3, inputs)
            expected[f"{place}.lora_B.default.weight"] = (outputs, 3)
    assert {name: tuple(parameter.shape) for name, parameter in trainable.items()} == expected
    assert all(parameter.dtype is torch.float32 and parameter.requires_grad for parameter in trainable.values())


def test_last_k_adapts_the_last_blocks_only(tiny: Tiny) -> None:
    trainable = attach(tiny("lora.last_k=1", "model.shape.num_hidden_layers=3"))
    assert len(trainable) == 14 and all(name.startswith("model.layers.2.") for name in trainable)


def test_dora_trains_a_magnitude_per_output_too(tiny: Tiny) -> None:
    trainable = attach(tiny("lora=dora", "lora.targets=qv", "precision=nf4"))
    magnitudes = {name: tuple(value.shape) for name, value in trainable.items() if "magnitude" in name}
    assert len(trainable) == 12 and sorted(magnitudes.values()) == [(32,), (32,), (64,), (64,)]
    assert all(parameter.dtype is torch.float32 for parameter in trainable.values())


def test_full_trains_every_weight_and_none_trains_nothing(tiny: Tiny) -> None:
    config = tiny("lora=full", "precision=bf16", *CAUSAL)
    backbone = load(config)
    trainable = lora.attach(backbone, config.lora, seed=0)
    assert list(trainable) == [name for name, _ in backbone.named_parameters()]
    assert "lm_head.weight" in trainable and all(parameter.requires_grad for parameter in trainable.values())
    assert attach(tiny("lora=none")) == {}


@pytest.mark.parametrize(("rslora", "scale"), [("false", 8 / 4), ("true", 8 / math.sqrt(4))])
def test_the_update_counts_alpha_over_rank_or_its_root(tiny: Tiny, rslora: str, scale: float) -> None:
    config = tiny("lora.rank=4", "lora.alpha=8", f"lora.rslora={rslora}", "precision=fp32", "lora.targets=qv")
    parts = open_adapter(build(config))
    layer = parts.backbone.body.layers[0].self_attn.q_proj
    input_BH = torch.randn(5, 64)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    wanted = input_BH @ layer.base_layer.weight.T + scale * (input_BH @ a.T @ b.T)
    torch.testing.assert_close(layer(input_BH), wanted, rtol=1e-5, atol=1e-5)


def test_a_fresh_adapter_changes_nothing(tiny: Tiny) -> None:
    config = tiny("precision=fp32")
    bare, adapted = load(config), build(config).backbone
    ids_BT, mask_BT = torch.tensor([[1, 5, 6, 7]]), torch.ones(1, 4, dtype=torch.bool)
    assert torch.equal(bare.hidden(ids_BT, mask_BT), adapted.hidden(ids_BT, mask_BT))


# --------------------------------------------------------------------------------------------------- where it starts


@pytest.mark.parametrize("option", ["lora=lora", "lora=dora"])
def test_the_start_depends_on_the_seed_alone(tiny: Tiny, option: str) -> None:
    torch.manual_seed(1)
    first = attach(tiny(option, "precision=nf4"))
    drawn = torch.rand(2)
    torch.manual_seed(2)
    again = attach(tiny(option, "precision=nf4", *CAUSAL, "data.order_seed=4", "optimizer=adamw_8bit"))
    other = attach(tiny(option, "precision=nf4", "seed=1"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    a_matrices = [name for name in first if "lora_A" in name]
    assert a_matrices and not any(torch.equal(first[name], other[name]) for name in a_matrices)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), drawn)


def test_lora_starts_alike_over_every_storage_type_up_to_rounding(tiny: Tiny) -> None:
    fp32, *others = (attach(tiny(f"precision={name}")) for name in ("fp32", "nf4", "int8", "bf16"))
    for other in others:  # PEFT draws it in the base layer's type
        assert all(torch.equal(fp32[name].bfloat16(), other[name].bfloat16()) for name in fp32)


# ----------------------------------------------------------------------------------------------------- what is saved


@pytest.mark.parametrize("head", [*HEADS, ["head=preference"]])
@pytest.mark.parametrize("adapter", [["lora.rslora=true"], ["lora=dora"], ["lora.last_k=1", "lora.targets=mlp"]])
def test_plain_peft_loads_what_is_saved(tiny: Tiny, tmp_path: Path, head: list[str], adapter: list[str]) -> None:
    base = tmp_path / "base"
    save_base(tiny(), base)
    parts = open_adapter(build(tiny(*adapter, *head, f"model.path={base}", "precision=fp32")))
    saved = tmp_path / "adapter"
    trained_weights.save_trained(saved, parts.model)
    batch = parts.batch([0, 1, 2])
    parts.backbone.body.eval()
    with torch.no_grad():
        ours_BTH = parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT)
        loader = AutoModelForCausalLM if head == CAUSAL else AutoModel
        plain = PeftModel.from_pretrained(loader.from_pretrained(base, dtype=torch.float32), saved).eval()
        output = plain(input_ids=batch.input_ids_BT, attention_mask=batch.mask_BT.long())
        if parts.backbone.lm_head is not None:
            ours_BTH, theirs_BTH = parts.backbone.lm_head(ours_BTH), output.logits
        else:
            theirs_BTH = output.last_hidden_state
    without_BTH = load(parts.config).hidden(batch.input_ids_BT, batch.mask_BT)
    torch.testing.assert_close(theirs_BTH, ours_BTH, rtol=1e-6, atol=1e-6)
    assert parts.backbone.lm_head is not None or (without_BTH - ours_BTH).abs().max() > 0.1
    described = json.loads((saved / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(base) and described["inference_mode"] is True


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("option", ["lora=lora", "lora=dora"])
def test_a_saved_adapter_comes_back_into_a_fresh_backbone(
    tiny: Tiny, tmp_path: Path, option: str, head: list[str]
) -> None:
    config = tiny(option, *head, "precision=nf4")
    parts = open_adapter(build(config))
    trained_weights.save_trained(tmp_path, parts.model)
    fresh = build(config)
    frozen = frozen_digest(fresh.backbone)
    trained_weights.load_trained(tmp_path, fresh.model)
    assert all(torch.equal(parts.adapter[name], fresh.adapter[name]) for name in parts.adapter)
    assert all(parameter.requires_grad for parameter in fresh.adapter.values())
    assert frozen_digest(fresh.backbone) == frozen
    batch = parts.batch([0, 1])
    assert torch.equal(parts.loss(batch), fresh.loss(batch))


@pytest.mark.parametrize("head", HEADS)
def test_a_fully_trained_model_comes_back_and_plain_transformers_loads_it(
    tiny: Tiny, tmp_path: Path, head: list[str]
) -> None:
    config = tiny("lora=full", *head, "precision=fp32")
    parts = open_adapter(build(config))
    trained_weights.save_trained(tmp_path, parts.model)
    fresh = build(config)
    trained_weights.load_trained(tmp_path, fresh.model)
    batch = parts.batch([0, 1])
    assert torch.equal(parts.loss(batch), fresh.loss(batch))
    loader = AutoModelForCausalLM if head == CAUSAL else AutoModel
    plain, report = loader.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    body = plain.model if head == CAUSAL else plain
    theirs_BTH = body(input_ids=batch.input_ids_BT, attention_mask=batch.mask_BT.long()).last_hidden_state
    torch.testing.assert_close(parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT), theirs_BTH)


def drop(state: dict[str, torch.Tensor]) -> None:
    del state[sorted(state)[3]]


def add(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(16, 64)


def spoil(state: dict[str, torch.Tensor]) -> None:
    state[sorted(state)[3]][0, 0] = math.nan


def shorten(state: dict[str, torch.Tensor]) -> None:
    name = sorted(state)[3]
    state[name] = state[name][:-1]


@pytest.mark.parametrize("damage", [drop, add, spoil, shorten])
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(
    tiny: Tiny, damage: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    parts = build(tiny("precision=fp32"))
    state = {name: value.clone() + 1 for name, value in lora.adapter_state(parts.backbone).items()}
    before = {name: value.clone() for name, value in parts.adapter.items()}
    damage(state)
    with pytest.raises(CheckpointError, match=r"the saved adapter does not fit: base_model\.model\.layers\."):
        lora.load_adapter_state(parts.backbone, state)
    assert all(torch.equal(before[name], parts.adapter[name]) for name in before)


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("targets", ["score", "[q_proj,qkv_proj]"])
def test_modules_that_are_not_there_are_refused_with_those_that_are(tiny: Tiny, targets: str) -> None:
    config = tiny()
    config.lora.targets = targets.strip("[]").split(",") if "[" in targets else targets
    with pytest.raises(ConfigError, match=r"no such module; it has down_proj, gate_proj, .*, v_proj$"):
        attach(config)


def test_more_blocks_than_there_are_are_refused(tiny: Tiny) -> None:
    config = tiny()
    config.lora.last_k = 3  # as over a folder, whose own shape is only known when it is loaded
    with pytest.raises(ConfigError, match=r"lora\.last_k must be at most 2, the model's number of blocks, got 3"):
        attach(config)


def test_only_the_chosen_blocks_are_adapted(tiny: Tiny) -> None:
    backbone = load_backbone(*chosen(tiny("lora.layers=[1]")), with_lm_head=False, device=torch.device("cpu"))
    trained = lora.attach(backbone, tiny("lora.layers=[1]").lora, seed=0)
    assert trained and all(".layers.1." in name for name in trained)
    with pytest.raises(ConfigError, match=r"lora\.layers must be under 2, the model's number of blocks, got \[2\]"):
        lora.attach(backbone, dataclasses.replace(tiny().lora, layers=[2]), seed=0)


def test_a_range_of_blocks_is_what_it_stands_for(tiny: Tiny) -> None:
    ranges, numbers = (
        tiny("model.shape.num_hidden_layers=6", f"lora.layers=[{blocks}]") for blocks in ("0-1,4-5", "5,4,0,1")
    )
    assert ranges.lora.layers == [0, 1, 4, 5] and trial_hash(ranges) == trial_hash(numbers)


def chosen(config: Config) -> tuple[Model, Precision]:
    return config.model, config.precision
