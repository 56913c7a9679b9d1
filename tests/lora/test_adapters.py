"""Every adapter over every storage type: it trains what it should and plain PEFT loads it, or it is refused."""

import copy
import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import covering
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from workbench import load, save_base

from danube_sweep import lora
from danube_sweep.config.facts.adapters import (
    FOUR_BIT,
    NO_LORA_FIELDS,
    NOT_OFFERED,
    OFFERED,
    QUANTISED,
    cannot,
    wrong_field,
)
from danube_sweep.config.schema import (
    Adalora,
    Bias,
    Compute,
    Config,
    Dora,
    Ia3,
    LinearAdapter,
    Lora,
    Olora,
    Peft,
    Precision,
    Storage,
    Vera,
)
from danube_sweep.config.validate import validate
from danube_sweep.errors import ConfigError
from danube_sweep.model import precision as precisions
from danube_sweep.model.backbone import Backbone
from danube_sweep.storage import checkpoint
from danube_sweep.training import trained_weights
from danube_sweep.training.assemble import AssembledModel
from danube_sweep.training.checks import (
    check_gradients,
    check_precision,
    check_trainable,
    compute_checked,
    frozen_digest,
)

Tiny = Callable[..., Config]

ADAPTERS: dict[str, tuple[LinearAdapter, set[str]]] = {
    "lora": (Lora(rank=4), {"lora_A", "lora_B"}),
    "dora": (Dora(rank=4), {"lora_A", "lora_B", "lora_magnitude_vector"}),
    "olora": (Olora(rank=4), {"lora_A", "lora_B"}),
    "adalora": (Adalora(rank=6, target_rank=3), {"lora_A", "lora_B", "lora_E"}),
    "ia3": (Ia3(), {"ia3_l"}),
    "vera": (Vera(rank=8), {"vera_lambda_b", "vera_lambda_d"}),
    "peft lora": (Peft(type="lora", fields={"r": 4, "lora_bias": True}), {"lora_A", "lora_B"}),
    "peft gaussian": (Peft(type="lora", fields={"r": 4, "init_lora_weights": "gaussian"}), {"lora_A", "lora_B"}),
    "peft pissa": (Peft(type="lora", fields={"r": 4, "init_lora_weights": "pissa"}), {"lora_A", "lora_B"}),
    "peft mica": (Peft(type="lora", fields={"r": 4, "init_lora_weights": "mica"}), {"lora_A"}),
    "peft orthogonal": (Peft(type="lora", fields={"r": 4, "init_lora_weights": "orthogonal"}), {"lora_A", "lora_B"}),
    "peft oft": (Peft(type="oft", fields={"oft_block_size": 8}), {"oft_R"}),
    "peft boft": (Peft(type="boft", fields={"boft_block_size": 4}), {"boft_R", "boft_s"}),
    "peft loha": (Peft(type="loha", fields={"r": 4}), {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    "peft lokr": (Peft(type="lokr", fields={"r": 4}), {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}),
    "peft hra": (Peft(type="hra", fields={"r": 4}), {"hra_u"}),
    "peft hira": (Peft(type="hira", fields={"r": 4}), {"hira_A", "hira_B"}),
    "peft fourierft": (Peft(type="fourierft", fields={"n_frequency": 16}), {"fourierft_spectrum"}),
    "peft waveft": (Peft(type="waveft", fields={"n_frequency": 16}), {"waveft_spectrum"}),
    "peft randlora": (Peft(type="randlora", fields={"r": 8}), {"randlora_lambda", "randlora_gamma"}),
    "peft gralora": (Peft(type="gralora", fields={"r": 8}), {"gralora_A", "gralora_B"}),
    "peft miss": (Peft(type="miss", fields={"r": 8}), {"miss_block"}),
    "peft road": (Peft(type="road", fields={"group_size": 8}), {"road_theta", "road_alpha"}),
    "peft c3a": (Peft(type="c3a", fields={"block_size": 16}), {"c3a_kernel"}),
    "peft delora": (Peft(type="delora", fields={"r": 4}), {"delora_A", "delora_B", "delora_lambda"}),
    "peft beft": (Peft(type="beft"), {"beft_bias"}),
}
"""Name -> an adapter for the tiny model and the names of what trains in it."""

PRECISIONS = {
    "fp32": Precision(Storage.fp32, Compute.fp32),
    "bf16": Precision(Storage.bf16, Compute.bf16),
    "fp16": Precision(Storage.fp16, Compute.fp16),
    "int8": Precision(Storage.int8, Compute.bf16),
    "nf4": Precision(Storage.nf4, Compute.bf16),
    "nf4_dq": Precision(Storage.nf4, Compute.bf16, double_quant=True),
    "fp4": Precision(Storage.fp4, Compute.bf16),
}
FOUR = ("nf4", "nf4_dq", "fp4")
REFUSED = {
    *itertools.product(ADAPTERS, ["fp16"]),  # no native fp16 on a CPU
    ("dora", "int8"),
    *itertools.product(["peft pissa", "peft mica", "peft orthogonal", "peft hra", "peft delora"], [*FOUR, "int8"]),
    *itertools.product(["peft loha", "peft lokr"], FOUR),
}
"""All that does not work on a CPU."""

IDS_BT = torch.randint(3, 250, (2, 12), generator=torch.Generator().manual_seed(0))
MASK_BT = torch.ones(2, 12, dtype=torch.bool)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import tiny_config

    folder = tmp_path_factory.mktemp("base")
    save_base(tiny_config("data.rows=60"), folder)
    return folder


def trial(tiny: Tiny, base: Path, name: str, precision: str) -> Config:
    config = dataclasses.replace(tiny(), lora=copy.deepcopy(ADAPTERS[name][0]), precision=PRECISIONS[precision])
    config.model.path = str(base)
    return config


def train(backbone: Backbone, trained: dict[str, torch.nn.Parameter], steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    target_BTH = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        loss = (backbone.hidden(IDS_BT, MASK_BT).float() - target_BTH).square().mean()
        loss.backward()
        check_gradients(trained)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def hidden(backbone: Backbone) -> torch.Tensor:
    backbone.body.eval()
    return backbone.hidden(IDS_BT, MASK_BT)


@torch.no_grad()
def by_plain_peft(config: Config, folder: Path) -> torch.Tensor:
    fresh = load(config)
    plain = PeftModel.from_pretrained(fresh.body, str(folder)).eval()
    with precisions.computing(config.precision, torch.device("cpu")):
        output = plain(input_ids=IDS_BT, attention_mask=MASK_BT.long(), use_cache=False)
    return output.last_hidden_state


def kinds(names: Any) -> set[str]:
    return {next(part for part in name.split(".")[4:] if "_" in part and "proj" not in part) for name in names}


def adapter_and_storage(case: tuple[str, str]) -> list[str]:
    """Each adapter is there, all that is refused, and our own options and PEFT's types over every storage type."""
    name, precision = case
    kind = "peft" if name.startswith("peft ") else name
    refused = [f"{name} refused over {precision}"] if case in REFUSED else []
    return [f"{name} trains" if case not in REFUSED else name, f"{kind} over {precision}", *refused]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "precision"), covering(list(ADAPTERS), list(PRECISIONS), meets=adapter_and_storage))
def test_every_adapter_over_every_precision_trains_or_is_refused(
    tiny: Tiny, base: Path, tmp_path: Path, name: str, precision: str
) -> None:
    config = trial(tiny, base, name, precision)
    if (name, precision) in REFUSED:
        with pytest.raises(ConfigError, match=r"does not work over|does not support fp16"):
            validate(config)
        return
    validate(config)
    backbone = load(config)
    trained = lora.attach(backbone, config.lora, seed=5)
    assert kinds(trained) == ADAPTERS[name][1]
    check_precision(backbone)
    check_trainable(config.lora, trained, torch.nn.Identity())
    before, frozen = {key: value.detach().clone() for key, value in trained.items()}, frozen_digest(backbone)
    with compute_checked(backbone):
        start_BTH = hidden(backbone)
    assert start_BTH.dtype is precisions.DTYPES[config.precision.compute]
    backbone.body.train()
    train(backbone, trained)
    assert not [key for key in trained if torch.equal(trained[key], before[key])]
    assert frozen_digest(backbone) == frozen
    trained_BTH = hidden(backbone)
    assert (trained_BTH - start_BTH).abs().max() > 0.01
    headless: Any = torch.nn.Identity()
    trained_weights.save_trained(tmp_path, AssembledModel(config, backbone, headless, trained, None))
    share = 1e-5 if config.precision.compute is Compute.fp32 else 0.05
    difference_BTH = by_plain_peft(config, tmp_path).float() - trained_BTH.float()
    assert difference_BTH.abs().max() < share * trained_BTH.abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ADAPTERS if (name, "nf4") not in REFUSED])
def test_over_4_bits_an_adapter_does_what_it_does_over_the_same_weights_unpacked(
    tiny: Tiny, base: Path, name: str
) -> None:
    if name == "olora":
        pytest.skip("it quantises again what it leaves of the weights")
    config = trial(tiny, base, name, "nf4")
    config.precision = Precision(Storage.nf4, Compute.fp32)
    packed = load(config)
    unpacked = load(dataclasses.replace(config, precision=PRECISIONS["fp32"]))
    linears = dict(unpacked.body.named_modules())
    for place, layer in packed.body.named_modules():
        if type(layer).__name__ == "Linear4bit":
            import bitsandbytes.functional as bnb

            linears[place].weight.data = bnb.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    trained = lora.attach(packed, config.lora, seed=5)
    lora.attach(unpacked, config.lora, seed=5)
    train(packed, trained)
    lora.load_adapter_state(unpacked, {key: value.clone() for key, value in lora.adapter_state(packed).items()})
    torch.testing.assert_close(hidden(packed), hidden(unpacked), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["olora", "adalora", "ia3", "vera", "peft pissa", "peft randlora", "peft fourierft"])
def test_a_saved_adapter_goes_back_over_the_same_frozen_bytes(
    tiny: Tiny, base: Path, tmp_path: Path, name: str
) -> None:
    config = trial(tiny, base, name, "fp32" if name == "peft pissa" else "nf4")
    first, again, other = (load(config) for _ in range(3))
    trained = lora.attach(first, config.lora, seed=5)
    lora.attach(again, config.lora, seed=5)
    assert frozen_digest(first) == frozen_digest(again)
    train(first, trained)
    checkpoint.save_tensors(lora.adapter_state(first), tmp_path / "weights")
    lora.load_adapter_state(again, checkpoint.load_tensors(tmp_path / "weights"))
    assert torch.equal(hidden(first), hidden(again))
    if name in ("vera", "peft randlora"):  # their projections come from the trial's seed and are not saved
        lora.attach(other, config.lora, seed=6)
        lora.load_adapter_state(other, checkpoint.load_tensors(tmp_path / "weights"))
        assert not torch.equal(hidden(first), hidden(other))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["adalora", "ia3", "vera", "peft oft", "peft road", "peft beft"])
@pytest.mark.parametrize("field", ["last_k", "layers"])
def test_blocks_and_targets_are_chosen_alike_for_every_adapter(tiny: Tiny, base: Path, name: str, field: str) -> None:
    config = trial(tiny, base, name, "fp32")
    config.lora = dataclasses.replace(
        config.lora, targets=["q_proj", "down_proj"], **{field: 1 if field == "last_k" else [0]}
    )
    trained = lora.attach(load(config), config.lora, seed=5)
    block = 1 if field == "last_k" else 0
    places = {re.sub(r"_proj\..*", "_proj", key) for key in trained}
    assert places == {f"model.layers.{block}.self_attn.q_proj", f"model.layers.{block}.mlp.down_proj"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["olora", "adalora", "ia3", "vera", "peft oft"])
def test_an_encoder_is_adapted_too(tiny: Tiny, name: str) -> None:
    config = tiny("model.shape.model_type=deberta-v2", "model.shape.num_key_value_heads=2")
    config.lora = copy.deepcopy(ADAPTERS[name][0])
    backbone = load(config)
    trained = lora.attach(backbone, config.lora, seed=5)
    assert len({key.split(".lora_")[0].split(".ia3")[0].split(".vera")[0].split(".oft")[0] for key in trained}) == 12
    train(backbone, trained)


def test_ia3_scales_the_inputs_of_the_last_linear_and_the_outputs_of_the_others(tiny: Tiny) -> None:
    config = tiny("lora=ia3")
    trained = lora.attach(load(config), config.lora, seed=0)
    sizes = {key.split(".")[4]: value.numel() for key, value in trained.items()}
    assert sizes["down_proj"] == 128 and sizes["o_proj"] == 64 and sizes["k_proj"] == 32 and sizes["up_proj"] == 128


# ------------------------------------------------------------------------------------------------------------ biases


@pytest.mark.parametrize(("bias", "count"), [("lora_only", 2), ("all", 6)])
def test_biases_train_with_lora_and_are_saved(tiny: Tiny, tmp_path: Path, bias: str, count: int) -> None:
    config = tiny("model.shape.model_type=qwen2", "lora.targets=[k_proj,o_proj]", f"lora.bias={bias}")
    backbone = load(config)
    trained = lora.attach(backbone, config.lora, seed=0)
    biases = {key for key in trained if key.endswith(".bias")}
    assert len(biases) == count and all(trained[key].dtype is torch.float32 for key in biases)
    train(backbone, trained)
    fresh = load(config)
    lora.attach(fresh, config.lora, seed=0)
    lora.load_adapter_state(fresh, {key: value.clone() for key, value in lora.adapter_state(backbone).items()})
    assert torch.equal(hidden(backbone), hidden(fresh))


def test_biases_that_are_not_there_or_would_be_rounded_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"lora\.bias=all: .* target layers have no such biases.*use lora\.bias=none"):
        tiny("lora.bias=all")
    qwen = "model.shape.model_type=qwen2"
    with pytest.raises(ConfigError, match=r"lora\.bias=lora_only: .* target layers have no such biases"):
        tiny(qwen, "lora.bias=lora_only", "lora.targets=mlp")
    with pytest.raises(ConfigError, match=r"lora\.bias=all does not work over nf4: bitsandbytes rounds"):
        tiny(qwen, "lora.bias=all", "precision=nf4")
    config = tiny()
    config.lora = Lora(bias=Bias.all)
    with pytest.raises(ConfigError, match=r"target layers have no such biases"):
        lora.attach(load(config), config.lora, seed=0)


# ------------------------------------------------------------------------------------------------------- lora=peft


def test_every_type_of_peft_is_offered_or_has_a_reason() -> None:
    known = {kind.value.lower() for kind in PeftType}
    assert known <= OFFERED.keys() | NOT_OFFERED.keys()
    assert not OFFERED.keys() & NOT_OFFERED.keys()


@pytest.mark.parametrize("name", OFFERED)
def test_the_fields_that_are_offered_are_those_of_peft(name: str) -> None:
    there = {field.name for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[name.upper()])}
    assert OFFERED[name].fields.keys() <= there
    if name == "lora":
        assert NO_LORA_FIELDS.keys() <= there


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (Peft(type="adalora"), "lora.type=adalora: it has an option of its own, lora=adalora; there are lora, oft"),
        (Peft(type="vblora"), "lora.type=vblora: its linears share weights that PEFT keeps outside them"),
        (Peft(type="OFT"), "lora.type=OFT: write it in lower case"),
        (Peft(type="magic"), "lora.type=magic: PEFT has no such type"),
        (
            Peft(type="oft", fields={"rank": 3}),
            "lora.fields.rank: no such field; lora.type=oft takes r, oft_block_size",
        ),
        (Peft(type="oft", fields={"coft": 3}), "lora.fields.coft must be true or false, got 3"),
        (Peft(type="hra", fields={"r": 0}), "lora.fields.r must be a whole number from 1, got 0"),
        (Peft(type="hra", fields={"r": "4"}), "lora.fields.r must be a whole number from 1, got 4"),
        (Peft(type="hira", fields={"hira_dropout": 1.0}), "must be a number from 0, under 1, got 1.0"),
        (Peft(type="waveft", fields={"scaling": float("nan")}), "must be a number above 0, got nan"),
        (Peft(type="lora", fields={"use_qalora": True}), "lora.fields.use_qalora: it silently becomes plain LoRA"),
        (Peft(type="lora", fields={"eva_config": {}}), "lora.fields.eva_config: it needs a pass over data"),
        (Peft(type="lora", fields={"init_lora_weights": "eva"}), "got eva: it needs a pass over data at the start"),
        (Peft(type="lora", fields={"init_lora_weights": "pissa_niter_4"}), "its decomposition is random"),
        (Peft(type="lora", fields={"init_lora_weights": "loftq"}), "got loftq: it starts from the unquantised weights"),
        (Peft(type="beft", fields={"r": 3}), "lora.fields.r: no such field; lora.type=beft takes none"),
    ],
)
def test_a_type_or_field_that_is_not_offered_is_refused_with_the_reason(adapter: Peft, said: str) -> None:
    assert said in (wrong_field(adapter) or "")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lora.type=c3a"], "lora.fields.block_size must divide 64, a width of q_proj, got 256"),
        (["lora.type=road", "lora.fields={group_size:24}"], "lora.fields.group_size must divide 64"),
        (["lora.type=oft", "lora.fields={oft_block_size:24}"], "lora.fields.oft_block_size must divide 64"),
        (
            ["lora.type=delora", "precision=nf4"],
            "lora.type=delora does not work over nf4: it computes with",
        ),
        (["lora.type=loha", "precision=fp4"], "lora.type=loha does not work over fp4: it uses the shape"),
        (["lora.type=oft", "lora.last_k=0"], "lora.last_k must be at least 1"),
    ],
)
def test_what_does_not_fit_the_model_or_its_storage_is_refused_before_anything_is_loaded(
    tiny: Tiny, overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        tiny("lora=peft", *overrides)


@pytest.mark.filterwarnings("ignore")
def test_what_only_peft_finds_wrong_is_said_in_one_line(tiny: Tiny) -> None:
    config = tiny("lora=peft", "lora.type=oft", "lora.fields={r:4}")  # beside the default oft_block_size of 32
    with pytest.raises(ConfigError, match=r"lora\.type=oft lora\.fields=\{'r': 4\}: PEFT refuses it: ") as raised:
        lora.attach(load(config), config.lora, seed=0)
    assert "\n" not in str(raised.value)


def test_what_bitsandbytes_cannot_do_on_a_cpu_is_only_refused_there() -> None:
    assert cannot(Dora(), Storage.int8, "cpu") and cannot(Dora(), Storage.int8, "cuda") is None
    assert {*FOUR_BIT, Storage.int8} == set(QUANTISED)
