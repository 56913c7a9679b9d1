"""The planner's parameters and bytes, against the models themselves."""

from collections import Counter

import pytest
import torch
from conftest import compose
from transformers import AutoModel

from danube_sweep import lora
from danube_sweep.config.facts.architectures import FAMILIES, architecture_of
from danube_sweep.config.schema import Compute, Init, Precision, Storage
from danube_sweep.head.build_head import build_head
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.model.backbone import architecture, load_backbone
from danube_sweep.optimizer.build_optimizer import build_optimizer, to_training
from danube_sweep.planner.adapter_shapes import frozen_bytes
from danube_sweep.planner.joint_pass import walk_of
from danube_sweep.planner.parameter_bytes import (
    Tensors,
    adapter_tensors,
    head_tensors,
    paged_bytes,
    parameters,
    state_bytes,
    stored_bytes,
)

SIZES = [
    "model.shape.hidden_size=768", "model.shape.intermediate_size=2048", "model.shape.num_attention_heads=12",
    "model.shape.num_key_value_heads=4", "model.shape.head_dim=64", "model.shape.num_hidden_layers=2",
]  # fmt: skip
CAUSAL = {
    "danube_1_8b": 1_831_201_280,
    "danube2_1_8b": 1_831_201_280,
    "danube3_500m": 513_590_784,
    "danube3_4b": 3_961_839_360,
    "danube3_1_4b": 3_961_839_360,
    "phi3_mini": 3_821_079_552,
    "gemma_7b": 8_537_680_896,
    "gemma2_9b": 9_241_705_984,
    "mistral_7b": 7_241_732_096,
    "qwen2_0_5b": 494_032_768,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
}
"""Parameters of the published causal models."""
LINEARS = {
    "danube3_500m": 415_236_096,
    "danube2_1_8b": 1_667_235_840,
    "danube3_4b": 3_715_891_200,
    "phi3_mini": 3_623_878_656,
    "gemma_7b": 7_751_073_792,
    "gemma2_9b": 8_323_596_288,
    "mistral_7b": 6_979_321_856,
    "qwen2_0_5b": 357_826_560,
    "deberta_v3_large": 302_211_072 - 221_184,  # known with its biases
}
GIB_OF_CLASSIFIER = {  # of three classes: fp32, fp16, int8, nf4, nf4 with double quantisation
    "danube3_500m": (1.73, 0.87, 0.48, 0.31, 0.29),
    "danube2_1_8b": (6.52, 3.26, 1.71, 1.03, 0.95),
    "danube3_4b": (14.30, 7.15, 3.69, 2.18, 2.01),
}


def shape_of(model: str) -> list[str]:
    return [f"model={model}", "data.max_length=512"]


@pytest.mark.parametrize("model", CAUSAL)
def test_a_published_model_has_as_many_parameters_as_it_is_known_to_have(model: str) -> None:
    config = compose(shape_of(model))
    assert parameters(architecture_of(config.model.shape), LMHead()) == CAUSAL[model]


@pytest.mark.parametrize("model", [*CAUSAL, "deberta_v3_base", "deberta_v3_large"])
def test_the_architecture_counts_what_transformers_builds(model: str) -> None:
    config = compose([*shape_of(model), "model.init=random"])
    with torch.device("meta"):
        body = AutoModel.from_config(architecture(config.model))
    planned = architecture_of(config.model.shape)
    linears = [layer for layer in body.modules() if isinstance(layer, torch.nn.Linear)]
    assert planned.body == sum(weight.numel() for weight in body.parameters())
    assert (
        planned.linear_weights
        == sum(layer.weight.numel() for layer in linears)
        == LINEARS.get(model, planned.linear_weights)
    )


@pytest.mark.parametrize("model", GIB_OF_CLASSIFIER)
def test_weights_take_the_bytes_that_are_known(model: str) -> None:
    config = compose(shape_of(model))
    fp16 = Compute.fp16
    storages = [
        Precision(Storage.fp32, Compute.fp32), Precision(Storage.fp16, fp16), Precision(Storage.int8, fp16),
        Precision(Storage.nf4, fp16), Precision(Storage.nf4, fp16, double_quant=True),
    ]  # fmt: skip
    for precision, gib in zip(storages, GIB_OF_CLASSIFIER[model], strict=True):
        config.precision = precision
        walk = walk_of(config, architecture_of(config.model.shape), 512)
        assert stored_bytes(walk, SequenceHead()) / 2**30 == pytest.approx(gib, abs=0.006)


def storages(tensors: list[torch.Tensor]) -> int:
    found = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(found.values())


@pytest.mark.parametrize("family", ["llama", "deberta-v2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4", "nf4_dq"])
def test_stored_weights_take_the_bytes_that_were_planned(precision: str, family: str) -> None:
    kv = [] if not FAMILIES[family].encoder else ["model.shape.num_key_value_heads=12"]
    config = compose([*SIZES, *kv, f"model.shape.model_type={family}", f"precision={precision}", "data.max_length=64"])
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    tensors: list[torch.Tensor] = []
    for weight in backbone.body.parameters():
        tensors.append(weight)
        state = getattr(weight, "quant_state", None)
        if state is not None:
            nested = [] if state.state2 is None else [state.state2.absmax, state.state2.code, state.offset]
            tensors += [state.absmax, state.code, *nested]
        if getattr(weight, "SCB", None) is not None:
            tensors.append(weight.SCB)
    walk = walk_of(config, architecture_of(config.model.shape), 64)
    assert stored_bytes(walk, config.head) == pytest.approx(storages(tensors), rel=0.0005)


NARROW = "model.shape.hidden_size=192 model.shape.intermediate_size=256 model.shape.vocab_size=512"
"""Muon orthogonalises in bf16, which takes minutes for wide matrices on a CPU without bf16 instructions."""


def test_a_head_as_large_as_a_matrix_of_the_backbone_is_paged_beside_it() -> None:
    paging, shape = compose(["optimizer=paged_adamw_8bit"]).optimizer, (1024, 1024)
    inner, outer = Tensors({shape: 3}), Tensors({}, {shape: 1})
    both = paged_bytes(paging, Tensors({shape: 3, (8, 8): 5}, {shape: 1}), 2)
    assert both == paged_bytes(paging, inner, 2) + paged_bytes(paging, outer, 2) > paged_bytes(paging, inner, 2)


@pytest.mark.parametrize(
    "overrides",
    [
        "lora.rank=16",
        "lora.rank=4 optimizer=adamw_8bit",
        "lora=dora lora.last_k=1 optimizer=paged_adamw_8bit",
        "lora=full precision=bf16",
        "lora=full optimizer=adamw_8bit",
        "optimizer=paged_adamw_32bit",
        "optimizer=ademamix_8bit",
        "lora.rank=4 optimizer=lion_8bit",
        "optimizer=sgd",
        "lora=dora optimizer=adafactor",
        f"lora=full optimizer=muon {NARROW}",
        "lora=dora optimizer=muon",
        "optimizer=schedulefree schedule=constant",
        "lora=full optimizer=schedulefree schedule=constant precision=bf16",
        "lora=ia3 optimizer=adafactor",
        "lora=vera optimizer=adamw_8bit",
        "lora=adalora optimizer=muon",
    ],
)
def test_states_take_exactly_the_bytes_that_were_planned(overrides: str) -> None:
    config = compose([*SIZES, *overrides.split(), "data.max_length=64"])
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    trained = lora.attach(backbone, config.lora, seed=0)
    optimizer = build_optimizer(config.optimizer, trained, {}, head_lr=None)
    for weight in trained.values():
        weight.grad = torch.zeros_like(weight)
    to_training(optimizer)
    optimizer.step()
    states = [(name, one) for state in optimizer.state.values() for name, one in state.items()]
    held = storages([one for name, one in states if isinstance(one, torch.Tensor) and "qmap" not in name])
    walk = walk_of(config, architecture_of(config.model.shape), 64)
    tensors = adapter_tensors(walk, config.head)
    assert tensors.elements == sum(weight.numel() for weight in trained.values())
    assert state_bytes(config.optimizer, tensors, walk.weight_bytes if walk.full else 4) == held


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "overrides",
    [
        "lora=olora lora.rank=4",
        "lora=adalora lora.last_k=1",
        "lora=ia3",
        "lora=ia3 lora.targets=[k_proj,up_proj]",
        "lora=vera",
        "lora=vera precision=int8",
        "lora=peft lora.type=lora lora.fields={lora_bias:true}",
        "lora=peft lora.type=lora lora.fields={init_lora_weights:mica,r:4} precision=bf16",
        "lora=peft lora.type=oft",
        "lora=peft lora.type=oft lora.fields={r:8,oft_block_size:0}",
        "lora=peft lora.type=oft lora.fields={block_share:true}",
        "lora=peft lora.type=boft",
        "lora=peft lora.type=boft lora.fields={boft_block_size:0,boft_block_num:16}",
        "lora=peft lora.type=loha precision=bf16",
        "lora=peft lora.type=hra precision=bf16",
        "lora=peft lora.type=hira",
        "lora=peft lora.type=fourierft",
        "lora=peft lora.type=waveft",
        "lora=peft lora.type=randlora",
        "lora=peft lora.type=randlora lora.targets=mlp lora.fields={r:50}",
        "lora=peft lora.type=gralora",
        "lora=peft lora.type=gralora lora.fields={hybrid_r:4,gralora_k:4}",
        "lora=peft lora.type=miss lora.layers=[1]",
        "lora=peft lora.type=road",
        "lora=peft lora.type=road lora.fields={variant:road_4}",
        "lora=peft lora.type=c3a lora.fields={block_size:64}",
        "lora=peft lora.type=delora precision=bf16",
        "lora=peft lora.type=beft",
    ],
)
def test_every_adapter_has_the_tensors_and_the_states_that_were_planned(overrides: str) -> None:
    precision = [] if "precision" in overrides else ["precision=nf4"]
    config = compose([*SIZES, *precision, *overrides.split(), "device=cpu", "data.max_length=64"])
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    trained = lora.attach(backbone, config.lora, seed=0)
    planned = adapter_tensors(walk_of(config, architecture_of(config.model.shape), 64), config.head)
    assert Counter(tuple(one.shape) for one in trained.values()) == Counter(dict(planned.inner))
    buffers = {one.data_ptr(): one for name, one in backbone.body.named_buffers() if "rotary" not in name}
    frozen = frozen_bytes(walk_of(config, architecture_of(config.model.shape), 64))
    assert frozen == pytest.approx(sum(one.nbytes for one in buffers.values()), rel=0.02, abs=30_000)


@pytest.mark.parametrize(
    "overrides",
    [
        "model.shape.model_type=qwen2 lora.bias=all",
        "model.shape.model_type=qwen2 lora.bias=lora_only lora.targets=qv lora.last_k=1",
        "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=12 lora.bias=all",
        "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=12 lora.bias=lora_only lora.targets=mlp",
    ],
)
def test_biases_that_train_are_counted(overrides: str) -> None:
    config = compose([*SIZES, *overrides.split(), "data.max_length=64"])
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    trained = lora.attach(backbone, config.lora, seed=0)
    planned = adapter_tensors(walk_of(config, architecture_of(config.model.shape), 64), config.head)
    assert planned.elements == sum(one.numel() for one in trained.values())


@pytest.mark.parametrize(
    "overrides",
    [
        "head=preference",
        "head=preference head.hidden=32 head.pooling=attention",
        "head=sequence head.pooling=attention",
        "head=sequence head.pooling=last_mean",
        "head=bradley_terry_ties",
        "head=bradley_terry_ties head.pooling=last_mean head.hidden=16",
        "head=bradley_terry_ties head.tie_term=features",
        "head=ordinal data=table data.path=x",
        "head=regression data=table data.path=x head.hidden=8",
        "head=multilabel data=table data.path=x",
        "head=token data=tokens data.path=x",
    ],
)
def test_heads_have_the_parameters_that_were_planned(overrides: str) -> None:
    config = compose(overrides.split())
    assert config.model.init is Init.auto
    model = architecture_of(config.model.shape)
    built = build_head(
        config.head, hidden_size=model.hidden, classes=["a", "b", "c"], tokenizer=None, lm_head=None, seed=0  # type: ignore[arg-type]
    )  # fmt: skip
    assert head_tensors(model, config.head, 3).elements == sum(weight.numel() for weight in built.parameters())
