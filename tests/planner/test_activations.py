"""The planner's count of what is kept for the backward pass, against tensor hooks on the real modules."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from conftest import compose
from covering import covering, every_value

from danube_sweep import lora
from danube_sweep.config.facts.adapters import is_packed
from danube_sweep.config.facts.architectures import architecture_of
from danube_sweep.config.schema import Config, Lora, RowLayout
from danube_sweep.model.backbone import Backbone, load_backbone
from danube_sweep.model.output_layer import OutputLayer
from danube_sweep.planner.activations import checkpoints, whole_body
from danube_sweep.planner.joint_pass import joint_walk
from danube_sweep.planner.memory import PER_LOGIT
from danube_sweep.planner.symbolic_pass import Pass
from danube_sweep.training.pack.shared_prefix import SharedPrefix

ROWS, LENGTH, SHORTER = 2, 96, 5
SHAPES = {
    "tiny": [],
    "768 x 8": ["hidden_size=768", "intermediate_size=2048", "num_attention_heads=12", "num_key_value_heads=4",
                "head_dim=64", "num_hidden_layers=8"],
    "danube3_500m, 2 blocks": ["hidden_size=1536", "intermediate_size=4096", "num_attention_heads=16",
                               "num_key_value_heads=8", "head_dim=96", "num_hidden_layers=2"],
}  # fmt: skip


def composed(*overrides: str, shape: str = "tiny") -> Config:
    sizes = [f"model.shape.{size}" for size in [*SHAPES[shape], "vocab_size=512"]]
    return compose(["device=cpu", *sizes, *overrides])


def saved_bytes(*configs: Config, padded: bool, length: int = LENGTH) -> tuple[int, Pass]:
    """Bytes of the storages that hooks see in one forward pass, weights left out, and the pass to plan."""
    first = configs[0]
    flat = first.data.layout is RowLayout.flat
    backbone = load_backbone(first.model, first.precision, with_lm_head=False, device=torch.device("cpu"), flat=flat)
    model = architecture_of(first.model.shape)
    walk = replace(joint_walk(configs, model, length), padded=padded and not flat)
    prefix, own = SharedPrefix(backbone), attached(backbone, configs)
    own |= weights_of(backbone)
    seen: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    mask_BT = torch.ones(ROWS, length, dtype=torch.bool)
    mask_BT[0, length - SHORTER :] = not padded
    ids_BT = torch.randint(3, 250, (ROWS, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_BTH = prefix.hidden(ids_BT, mask_BT, [0] * len(configs), from_block=walk.first_adapted)
    for tensor in held_by_nodes(hidden_BTH.grad_fn):
        keep(tensor)
    return sum(size for size, _ in seen.values()), walk


def attached(backbone: Backbone, configs: Sequence[Config]) -> set[int]:
    """Puts the trials' adapters into the backbone; returns the places of their packed weights."""
    if len(configs) == 1 and not is_packed(configs[0].lora):
        lora.attach(backbone, configs[0].lora, seed=0)
        return set()
    adapters = lora.PackedAdapters(backbone)
    drawn = [adapters.draw(config.lora, seed=0) if isinstance(config.lora, Lora) else None for config in configs]
    adapters.arrange(drawn)
    shares = enumerate(one.config.dropout if one else 0.0 for one in drawn)
    adapters.expect(range(len(drawn)), {n: lora.Noise(share, 0, ROWS, LENGTH) for n, share in shares if share})
    return {
        weight.untyped_storage().data_ptr() for one in drawn if one for pair in one.matrices.values() for weight in pair
    }


def held_by_nodes(node: Any) -> Iterator[torch.Tensor]:
    """What bitsandbytes' int8 product keeps as attributes of its node."""
    waiting, seen = [node], set()
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.add(one)
        waiting += [following for following, _ in one.next_functions]
        if isinstance(held := getattr(one, "A", None), torch.Tensor):
            yield held


def weights_of(backbone: Backbone) -> set[int]:
    tensors = [tensor for module in backbone.modules() for tensor in [*module.parameters(), *module.buffers()]]
    for weight in list(tensors):
        state = getattr(weight, "quant_state", None)
        if state is not None:
            nested = [] if state.state2 is None else [state.state2.absmax, state.state2.code, state.offset]
            tensors += [state.absmax, state.code, *nested]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def is_run(shape: str, storage: str, trained: str, checkpointing: bool) -> bool:
    # A whole model is not trained in 4 bits. The wide shapes are slow: in 16 and 4 bits, without checkpointing.
    return (storage in ("fp32", "bf16") or trained != "lora=full") and (
        shape == "tiny" or (storage != "fp32" and not checkpointing)
    )


@pytest.mark.parametrize(
    ("shape", "storage", "trained", "checkpointing"),
    covering(
        list(SHAPES),
        ["fp32", "bf16", "nf4", "nf4_dq"],
        ["lora.targets=qv", "lora.targets=all_linear", "lora=full"],
        [False, True],
        meets=every_value,
        possible=is_run,
    ),
)
def test_what_is_kept_is_what_the_walk_says(shape: str, storage: str, trained: str, checkpointing: bool) -> None:
    more = f"precision.gradient_checkpointing={str(checkpointing).lower()}"
    config = composed(f"precision={storage}", trained, more, shape=shape)
    counted, walk = saved_bytes(config, padded=False)
    planned = (checkpoints if checkpointing else whole_body)(walk)
    assert planned.bytes(ROWS * LENGTH) == pytest.approx(counted, rel=0.002)


OTHERS = [
    "precision=bf16 lora.dropout=0.1",
    "precision=fp32 lora.dropout=0.1 lora.targets=qv",
    "precision=bf16 lora.last_k=2",
    "precision=bf16 lora.last_k=1 lora.targets=mlp",
    "precision=bf16 lora.layers=[1]",
    "precision=fp32 lora.layers=[0,2] lora.targets=qv",
    "precision=nf4 lora=dora lora.dropout=0.1",
    "model.shape.model_type=phi3 precision=bf16",
    "model.shape.model_type=mistral precision=bf16 model.shape.sliding_window=32",
    "precision=nf4 lora.targets=[down_proj]",
    "precision=nf4 lora=dora",
    "precision=fp32 precision.compute=bf16",
    "precision=fp32 precision.compute=bf16 lora=full",
    "precision=bf16 lora=none",
    "model.shape.model_type=qwen2 precision=bf16",
    "model.shape.model_type=gemma precision=fp32 lora=full",
    "model.shape.model_type=gemma2 precision=bf16 lora.targets=qv",
    "model.shape.model_type=phi3 precision=nf4 lora.targets=qv",
    "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=4 precision=bf16",
    "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=4 precision=fp32 lora=full",
]


@pytest.mark.parametrize(
    ("overrides", "padded"),
    covering(OTHERS, [False, True], meets=every_value),
)
def test_so_is_what_other_adapters_and_other_families_keep(overrides: str, padded: bool) -> None:
    counted, walk = saved_bytes(composed(*overrides.split()), padded=padded)
    planned = whole_body(walk).bytes(ROWS * LENGTH)
    assert planned == pytest.approx(counted, rel=0.01)


def test_so_is_what_a_long_row_of_an_encoder_keeps() -> None:
    shape = "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=4 model.shape.num_hidden_layers=1"
    counted, walk = saved_bytes(composed(*shape.split(), "precision=bf16"), padded=True, length=1024)
    assert whole_body(walk).bytes(ROWS * 1024) == pytest.approx(counted, rel=0.01)


PACKS = [
    ["lora.rank=8"] * 3,
    ["lora.rank=4", "lora.rank=8", "lora.rank=32 lora.dropout=0.1"],
    ["lora.last_k=1 lora.targets=qv", "lora.last_k=2 lora.targets=mlp"],
    ["lora=none", "lora.rank=16"],
]


@pytest.mark.parametrize(
    ("trials", "precision", "checkpointing"),
    covering(PACKS, ["fp32", "bf16", "nf4", "int8"], [False, True], meets=every_value),
)
def test_so_is_what_a_pack_keeps(trials: list[str], precision: str, checkpointing: bool) -> None:
    common = [f"precision={precision}", f"precision.gradient_checkpointing={str(checkpointing).lower()}"]
    configs = [composed(*common, *trial.split()) for trial in trials]
    counted, walk = saved_bytes(*configs, padded=False)
    planned = (checkpoints if checkpointing else whole_body)(walk)
    expected = planned.bytes(len(trials) * ROWS * LENGTH)
    if checkpointing:  # hooks also see the inputs of blocks below, which are let go as soon as the block has run
        expected += walk.first_adapted * ROWS * LENGTH * walk.model.hidden * walk.residual_bytes
    assert expected == pytest.approx(counted, rel=0.002)


@pytest.mark.parametrize(
    "overrides", ["precision=bf16", "precision=fp32", "model.shape.model_type=phi3 precision=bf16"]
)
@pytest.mark.parametrize("trials", [1, 2])
def test_so_is_what_rows_laid_end_to_end_keep(overrides: str, trials: int) -> None:
    config = composed(*overrides.split(), "data.layout=flat")
    counted, walk = saved_bytes(*[config] * trials, padded=False)
    assert whole_body(walk).bytes(trials * ROWS * LENGTH) == pytest.approx(counted, rel=0.01)


KINDS = [
    "lora=olora",
    "lora=adalora",
    "lora=ia3",
    "lora=ia3 lora.targets=[k_proj,v_proj,down_proj]",
    "lora=vera",
    "lora=vera lora.rank=32 lora.targets=qv lora.dropout=0.1",
]


def option_and_storage(case: tuple[str, str]) -> list[str]:
    """An adapter meets every storage type in one of its settings, and each setting is there."""
    return [case[0], f"{case[0].split()[0]} over {case[1]}"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("overrides", "precision"),
    covering(KINDS, ["fp32", "bf16", "nf4", "int8", "int8 precision.compute=bf16"], meets=option_and_storage),
)
def test_so_is_what_other_kinds_of_adapters_keep(overrides: str, precision: str) -> None:
    counted, walk = saved_bytes(composed(*overrides.split(), *f"precision={precision}".split()), padded=False)
    assert whole_body(walk).bytes(ROWS * LENGTH) == pytest.approx(counted, rel=0.01)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_so_is_what_adalora_keeps_with_dropout(precision: str) -> None:
    config = composed("lora=adalora", "lora.dropout=0.1", "lora.last_k=1", f"precision={precision}")
    counted, walk = saved_bytes(config, padded=False)
    assert whole_body(walk).bytes(ROWS * LENGTH) == pytest.approx(counted, rel=0.01)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4", "int8"])
def test_pefts_own_types_keep_no_more_than_planned(precision: str) -> None:
    config = composed("lora=peft", "lora.type=lora", "lora.fields={r:4}", f"precision={precision}")
    counted, walk = saved_bytes(config, padded=False)
    assert counted < whole_body(walk).bytes(ROWS * LENGTH)


def test_int8_keeps_the_inputs_of_its_linears_where_hooks_do_not_see_them() -> None:
    config = composed("precision=int8", "lora.targets=qv")
    counted, walk = saved_bytes(config, padded=False)
    assert whole_body(walk).bytes(ROWS * LENGTH) == pytest.approx(counted, rel=0.005)


@pytest.mark.parametrize("capped", [False, True])
def test_the_loss_of_words_takes_the_bytes_a_logit_that_are_planned(capped: bool) -> None:
    words, states_PH = 4000, torch.randn(64, 8, requires_grad=True)
    layer = OutputLayer(torch.nn.Linear(8, words, bias=False).requires_grad_(False), 30.0 if capped else None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        torch.nn.functional.cross_entropy(layer(states_PH), torch.zeros(64, dtype=torch.long)).backward()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    assert max(live) / (64 * words) == pytest.approx(PER_LOGIT[capped], rel=0.01)


def test_a_gpu_keeps_a_byte_for_a_dropped_element_where_a_cpu_keeps_a_factor() -> None:
    walk = Pass(
        architecture_of(composed().model.shape),
        composed().precision,
        composed("lora=dora", "lora.dropout=0.1").lora,
        LENGTH,
    )
    on_cpu = replace(walk, cpu=True)
    assert whole_body(walk).per_token < whole_body(on_cpu).per_token
