"""Which adapters work over which weights, and PEFT's own types that `lora=peft` offers; no torch, no PEFT.

Everything here was found by training each over a tiny model (tests/lora/test_adapters.py does it again).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from danube_sweep.config.facts.architectures import LinearShape, family_of
from danube_sweep.config.finite_number import is_finite_number
from danube_sweep.config.schema import Adapter, Bias, Dora, FullFinetune, Lora, NoAdapter, Olora, Peft, Storage

FOUR_BIT = (Storage.nf4, Storage.fp4)
QUANTISED = (*FOUR_BIT, Storage.int8)


def is_packed(adapter: Adapter | None) -> TypeGuard[Lora]:
    """Whether the packed operation trains it, alone or with others; every other adapter trains in PEFT's layers."""
    return type(adapter) is Lora and adapter.bias is Bias.none


def shares_backbone(adapter: Adapter, model_type: str) -> bool:
    """Whether a trial may train in a pack, over one backbone with others.

    No encoder's may: its own dropout draws for the whole batch, so in a pack it would draw other numbers than alone.
    """
    return (is_packed(adapter) or isinstance(adapter, NoAdapter)) and not family_of(model_type).encoder


def draws_by_row(adapter: Adapter, *, encoder: bool) -> bool:
    """Whether all that is random in a forward pass can be drawn for some rows of a micro-batch alone.

    An encoder's own dropout and that of PEFT's layers draw from torch's generator for all rows at once.
    """
    if encoder or isinstance(adapter, Peft):
        return False
    return is_packed(adapter) or getattr(adapter, "dropout", 0.0) == 0


NEVER_DECAYED = (".ia3_l.", ".boft_s.", ".road_theta.", ".road_alpha.", ".beft_bias.")
"""Parts of names: factors that start at 1, and biases, which PEFT keeps as matrices."""


def never_decayed(adapter: Adapter) -> tuple[str, ...]:
    """Parts of the names of parameters that weight decay would pull away from the frozen model.

    OLoRA's and PiSSA's A and B hold a part of the frozen weights when they start.
    """
    match adapter:
        case Olora() | Peft(type="lora", fields={"init_lora_weights": "pissa"}):
            return (*NEVER_DECAYED, ".lora_A.", ".lora_B.")
    return NEVER_DECAYED


SGD_RATE, SGD_RATE_FULL = 50.0, 20.0
SGD_RATES = {"waveft": 5.0, "randlora": 8.0}
"""SGD's default rate over AdamW's, because its steps grow with the gradient: of LoRA and most adapters, of all weights,
and of PEFT's types that need less. Share of AdamW's fall of the loss in 40 steps (docs/decisions/019): all weights .50
at 50, .81 at 20; waveft .32 and .56 at 5; randlora -.05 and .56 at 8.
"""


def sgd_rate(adapter: type[Adapter], name: str | None) -> float:
    """SGD's default rate over AdamW's; `name`: PEFT's, where the adapter is one of `lora=peft`."""
    if issubclass(adapter, FullFinetune):
        return SGD_RATE_FULL
    return SGD_RATES.get(name or "", SGD_RATE)


# -------------------------------------------------------------------------------------------------- fields of PEFT


@dataclass(frozen=True)
class Kind:
    """The accepted values of a PEFT field: in words, and as a test."""

    said: str
    takes: Callable[[Any], bool]


def _whole(least: int) -> Kind:
    def takes(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Kind(f"a whole number from {least}", takes)


def _words(*words: str) -> Kind:
    return Kind(" or ".join(words), lambda value: value in words)


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
SHARE = Kind("a number from 0, under 1", lambda value: is_finite_number(value) and 0 <= value < 1)
POSITIVE = Kind("a number above 0", lambda value: is_finite_number(value) and value > 0)
COUNT, FROM_0 = _whole(1), _whole(0)

UNQUANTISED = tuple(storage for storage in Storage if storage not in QUANTISED)
NOT_4_BIT = (*UNQUANTISED, Storage.int8)


@dataclass(frozen=True)
class Offered:
    """A type of PEFT's: its fields, the storage types it works over, and why not the others."""

    fields: Mapping[str, Kind] = field(default_factory=dict)
    over: tuple[Storage, ...] = tuple(Storage)
    why: str = ""


_READS = "it computes with the weights as stored"
_SHAPES = "it uses the shape of the weights, which 4-bit storage packs two to a byte"

OFFERED: dict[str, Offered] = {
    "lora": Offered(
        {
            "r": COUNT,
            "lora_alpha": POSITIVE,
            "lora_dropout": SHARE,
            "use_rslora": FLAG,
            "lora_bias": FLAG,
            "init_lora_weights": _words("gaussian", "pissa", "mica", "orthogonal"),
        }
    ),
    "oft": Offered(
        {
            "r": FROM_0,
            "oft_block_size": FROM_0,
            "module_dropout": SHARE,
            "coft": FLAG,
            "eps": POSITIVE,
            "block_share": FLAG,
            "use_cayley_neumann": FLAG,
            "num_cayley_neumann_terms": COUNT,
        }
    ),
    "boft": Offered({"boft_block_size": FROM_0, "boft_block_num": FROM_0, "boft_dropout": SHARE}),
    "loha": Offered({"r": COUNT, "alpha": COUNT, "rank_dropout": SHARE}, NOT_4_BIT, _SHAPES),
    "lokr": Offered(
        {
            "r": COUNT,
            "alpha": COUNT,
            "rank_dropout": SHARE,
            "rank_dropout_scale": FLAG,
            "decompose_both": FLAG,
            "decompose_factor": _whole(-1),
        },
        NOT_4_BIT,
        _SHAPES,
    ),
    "hra": Offered({"r": COUNT, "apply_GS": FLAG}, UNQUANTISED, _READS),
    "hira": Offered({"r": COUNT, "hira_dropout": SHARE}),
    "fourierft": Offered({"n_frequency": COUNT, "scaling": POSITIVE, "random_loc_seed": FROM_0, "init_weights": FLAG}),
    "waveft": Offered({"n_frequency": COUNT, "scaling": POSITIVE, "random_loc_seed": FROM_0, "use_idwt": FLAG}),
    "randlora": Offered(
        {"r": COUNT, "randlora_alpha": COUNT, "randlora_dropout": SHARE, "sparse": FLAG, "very_sparse": FLAG}
    ),
    "gralora": Offered(
        {"r": COUNT, "hybrid_r": FROM_0, "alpha": COUNT, "gralora_k": COUNT, "gralora_dropout": SHARE},
    ),
    "miss": Offered({"r": COUNT, "miss_dropout": SHARE}),
    "road": Offered({"variant": _words("road_1", "road_2", "road_4"), "group_size": COUNT}),
    "c3a": Offered({"block_size": COUNT, "init_weights": _words("gaussian", "kaiming_uniform", "xavier_uniform")}),
    "delora": Offered({"r": COUNT, "delora_lambda": COUNT, "module_dropout": SHARE}, UNQUANTISED, _READS),
    "beft": Offered(),
}
"""PEFT's name -> our offer. Each adapts linears in place, needs no data to start, and keeps its own state."""

_OWN_OPTION = "it has an option of its own, lora={}"
_PROMPT = "it adds tokens to the prompt instead of adapting linears"
_SHARED = "its linears share weights that PEFT keeps outside them"
_MOVES = "it decomposes the weights when it starts, and keeps its own copy of them"

NOT_OFFERED: dict[str, str] = {
    **{name: _OWN_OPTION.format(name) for name in ("adalora", "ia3", "vera")},
    **dict.fromkeys(
        ("prompt_tuning", "multitask_prompt_tuning", "p_tuning", "prefix_tuning", "cpt", "cartridge"), _PROMPT
    ),
    **dict.fromkeys(("vblora", "unilora", "tinylora", "frod", "lily"), _SHARED),
    **dict.fromkeys(("osf", "psoft", "adamss"), _MOVES),
    **dict.fromkeys(("deft", "peanut"), f"{_READS}: over int8 it silently trains on nonsense"),
    **dict.fromkeys(("shira", "supertuning"), "it keeps the positions of its weights outside its parameters"),
    "pvera": "it samples in every pass, including prediction, and needs a term in the loss",
    "glora": "it saves untrained parameters together with trained ones",
    "adaption_prompt": _PROMPT,
    "ln_tuning": "it trains only norms, not linears",
    "trainable_tokens": "it trains only embeddings, not linears",
    "poly": "it needs the number of a task in every pass",
    "xlora": "it mixes adapters that are already trained",
    "shadow": "it wraps the whole model",
    "bone": "PEFT has renamed it: use lora.type=miss",
}
"""PEFT's name -> why `lora=peft` does not take it."""

DIVIDES: dict[str, tuple[tuple[str, int, bool, bool], ...]] = {
    "oft": (("oft_block_size", 32, True, False), ("r", 0, True, False)),
    "boft": (("boft_block_size", 4, True, False), ("boft_block_num", 0, True, False)),
    "c3a": (("block_size", 256, True, True),),
    "road": (("group_size", 64, False, True),),
    "gralora": (("gralora_k", 2, True, True),),
}
"""PEFT's name -> fields, PEFT's default, and whether they must divide a linear's inputs and its outputs; 0 need not."""

NO_DATA = "it needs a pass over data at the start, and is plain LoRA without one"
NO_LORA_FIELDS: dict[str, str] = {
    "use_dora": "it has an option of its own, lora=dora",
    "bias": "it has an option of its own, lora=lora lora.bias=…",
    "eva_config": NO_DATA,
    "corda_config": NO_DATA,
    "lora_ga_config": NO_DATA,
    "loftq_config": "it starts from the unquantised weights, which are not kept",
    "kasa_config": "it silently becomes plain LoRA over quantised weights, and elsewhere needs terms in the loss",
    "use_qalora": "it silently becomes plain LoRA over all weights except GPTQ",
    "qalora_group_size": "it silently becomes plain LoRA over all weights except GPTQ",
    "monteclora_config": "it silently becomes plain LoRA over quantised weights, and needs a term in the loss",
    "velora_config": "it keeps less for the backward pass than the gradients need, and saves its own state beside them",
    "use_bdlora": "it splits A and B for several GPUs, and silently becomes plain LoRA over quantised weights",
    "alora_invocation_tokens": "it adapts only the text after certain tokens of a causal prompt",
    "arrow_config": "it mixes adapters that are already trained",
    "layer_replication": "it changes the number of blocks",
    "trainable_token_indices": "it trains only embeddings, not linears",
    "target_parameters": "lora.targets chooses what is adapted",
}
"""Fields of PEFT's LoraConfig -> why lora.type=lora does not take them."""

NO_LORA_STARTS: dict[str, str] = {
    **dict.fromkeys(("eva", "corda", "lora_ga"), NO_DATA),
    "loftq": NO_LORA_FIELDS["loftq_config"],
    "olora": "it has an option of its own, lora=olora",
}
"""Values of init_lora_weights -> why not; `pissa_niter_4` and its like are refused as random."""
FROM_WEIGHTS = ("pissa", "mica", "orthogonal")
"""Those that decompose the weights, which must not be quantised then."""


# ------------------------------------------------------------------------------------------------------- questions


def wrong_field(adapter: Peft) -> str | None:
    """The mistake in `lora.type` or `lora.fields`, in one line with the way out; None if there is none."""
    offered = OFFERED.get(adapter.type)
    if offered is None:
        why = NOT_OFFERED.get(
            adapter.type, "PEFT has no such type" if adapter.type.islower() else "write it in lower case"
        )
        return f"lora.type={adapter.type}: {why}; there are {', '.join(OFFERED)}"
    if not isinstance(adapter.fields, dict | None):
        return f"lora.fields must hold PEFT's own fields, for example {{r:8}}, got {adapter.fields}"
    for name, value in (adapter.fields or {}).items():
        kind = offered.fields.get(name)
        if kind is None:
            refused = NO_LORA_FIELDS.get(name) if adapter.type == "lora" else None
            there = ", ".join(offered.fields) or "none"
            return f"lora.fields.{name}: {refused or 'no such field'}; lora.type={adapter.type} takes {there}"
        if not kind.takes(value):
            reason = _start_refused(value) if name == "init_lora_weights" else None
            return f"lora.fields.{name} must be {kind.said}, got {value}" + (f": {reason}" if reason else "")
    return None


def wrong_size(adapter: Peft, linears: Sequence[LinearShape]) -> str | None:
    """Which linear a field of `lora.fields` does not divide, in one line; None if all are divided."""
    for name, default, of_inputs, of_outputs in DIVIDES.get(adapter.type, ()):
        value = (adapter.fields or {}).get(name, default)
        for linear in linears:
            sizes = [linear.inputs] * of_inputs + [linear.outputs] * of_outputs
            if value and any(size % value for size in sizes):
                size = next(size for size in sizes if size % value)
                return f"lora.fields.{name} must divide {size}, a width of {linear.name}, got {value}"
    return None


def _start_refused(value: Any) -> str | None:
    if str(value).startswith("pissa_niter"):
        return "its decomposition is random, so a saved adapter would not fit the weights again"
    return NO_LORA_STARTS.get(str(value))


def cannot(adapter: Adapter, storage: Storage, accelerator: str) -> str | None:
    """Why an adapter does not work over this storage, with the way out; None if it does, or if unknown."""
    match adapter:
        case Dora() if storage is Storage.int8 and accelerator == "cpu":
            return "lora=dora does not work over int8 on a CPU; use precision=nf4 or lora=lora"
        case Lora(bias=bias) if bias is not Bias.none and storage in QUANTISED:
            return (
                f"lora.bias={bias.value} does not work over {storage.value}: bitsandbytes rounds a bias that trains "
                "to the compute type; use precision=bf16 or lora.bias=none"
            )
        case Peft(type="lora", fields={"init_lora_weights": start}) if start in FROM_WEIGHTS and storage in QUANTISED:
            return (
                f"lora.fields.init_lora_weights={start} does not work over {storage.value}: it decomposes the weights; "
                "use precision=bf16 or fp32, or lora=olora"
            )
        case Peft(type=name) if storage not in OFFERED[name].over:
            other = "int8, bf16 or fp32" if Storage.int8 in OFFERED[name].over else "bf16 or fp32"
            return f"lora.type={name} does not work over {storage.value}: {OFFERED[name].why}; use precision={other}"
    return None
