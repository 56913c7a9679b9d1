"""The checks of adapters in the blocks' linears."""

import re
from typing import Any

from danube_sweep.config.facts.adapters import wrong_field, wrong_size
from danube_sweep.config.facts.architectures import FAMILIES, TARGET_SETS, Family, architecture_of
from danube_sweep.config.require import require
from danube_sweep.config.schema import Adalora, Bias, Ia3, LinearAdapter, Lora, Olora, Peft, Shape, Vera
from danube_sweep.errors import ConfigError

NO_BIASES = "the model's target layers have no such biases, so this would have no effect"


def block_numbers(asked: list[Any]) -> list[int]:
    """`lora.layers`, its ranges written out: [0,20-23] is [0,20,21,22,23]. Raises ConfigError for anything else."""
    ends = [re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", str(entry)) for entry in asked]
    found = [list(range(int(end[1]), int(end[2] or end[1]) + 1)) for end in ends if end is not None]
    given = ",".join(map(str, asked))
    require(
        bool(asked) and all(ends) and all(found),
        f"lora.layers must list block numbers from 0 and ranges, for example [0,1,20-23], got [{given}]; "
        "for no adapter use lora=none",
    )
    return sorted({number for numbers in found for number in numbers})


def validate_adapter(adapter: LinearAdapter, shape: Shape | None) -> None:
    """Raises ConfigError for the first value that cannot work; checks that need a shape are skipped without one.

    Which storage types an adapter works over is asked elsewhere: `adapters.cannot`.
    """
    _blocks(adapter)
    match adapter:
        case Lora():
            _rank(adapter)
            require(adapter.plus_ratio > 0, f"lora.plus_ratio must be above 0, got {adapter.plus_ratio}")
        case Adalora():
            _rank(adapter)
            _adalora(adapter)
        case Vera():
            _rank(adapter)
            require(adapter.d_initial != 0, "lora.d_initial must not be 0 (nothing would train), got 0")
        case Peft():
            if wrong := wrong_field(adapter):
                raise ConfigError(wrong)
        case Ia3():
            pass
        case _:
            raise TypeError(f"no check for {type(adapter).__name__}")
    if shape is not None:
        _places(adapter, shape)


def _rank(adapter: Lora | Adalora | Vera) -> None:
    rank, dropout, alpha = adapter.rank, adapter.dropout, getattr(adapter, "alpha", None)
    require(rank >= 1, f"lora.rank must be at least 1, got {rank}; for no adapter use lora=none")
    require(
        alpha is None or alpha > 0,
        f"lora.alpha must be above 0, got {alpha}; null follows lora.rank; for no adapter use lora=none",
    )
    require(0 <= dropout < 1, f"lora.dropout must be at least 0 and under 1, got {dropout}")


def _blocks(adapter: LinearAdapter) -> None:
    last_k, layers = adapter.last_k, adapter.layers
    require(last_k is None or last_k >= 1, f"lora.last_k must be at least 1, got {last_k}")
    require(
        layers is None or last_k is None,
        f"lora.layers={layers} and lora.last_k={last_k} both choose blocks; give one",
    )


def check_blocks(adapter: LinearAdapter, blocks: int) -> None:
    """Raises ConfigError for blocks beyond the model's number of blocks."""
    last_k, layers = adapter.last_k, adapter.layers
    require(
        last_k is None or last_k <= blocks,
        f"lora.last_k must be at most {blocks}, the model's number of blocks, got {last_k}",
    )
    require(
        layers is None or max(layers) < blocks,
        f"lora.layers must be under {blocks}, the model's number of blocks, got {layers}",
    )


def _adalora(adapter: Adalora) -> None:
    rank, target, delta_t = adapter.rank, adapter.target_rank, adapter.delta_t
    require(
        1 <= target < rank,
        f"lora.target_rank must be at least 1 and under lora.rank={rank}, got {target}; for a fixed rank use lora=lora",
    )
    require(delta_t >= 1, f"lora.delta_t must be at least 1, got {delta_t}")
    for name in ("warmup", "final"):
        value = getattr(adapter, name)
        require(0 <= value < 1, f"lora.{name} must be at least 0 and under 1, got {value}: it is a share of all steps")
    together = adapter.warmup + adapter.final
    require(together < 1, f"lora.warmup + lora.final must be under 1, got {together:g}; ranks fall between them")
    weight = adapter.orthogonality
    require(weight >= 0, f"lora.orthogonality must be at least 0, got {weight}")
    for name in ("beta1", "beta2"):
        value = getattr(adapter, name)
        require(0 < value < 1, f"lora.{name} must be above 0 and under 1, got {value}")


def _places(adapter: LinearAdapter, shape: Shape) -> None:
    # Checks of the shape; for a folder's own config they run when the adapter is built.
    family = FAMILIES[shape.model_type]
    check_blocks(adapter, shape.num_hidden_layers)
    _targets(adapter.targets, family)
    targets = architecture_of(shape).targets(adapter.targets)
    match adapter:
        case Olora(rank=rank):
            narrowest = min((min(linear.inputs, linear.outputs) for linear in targets), default=rank)
            require(rank <= narrowest, f"lora.rank must be at most {narrowest}, the narrowest target, got {rank}")
        case Peft() if wrong := wrong_size(adapter, targets):
            raise ConfigError(wrong)
    match adapter:
        case Lora(bias=bias) if bias is not Bias.none:
            biased = family.biased if bias is Bias.all else [linear.name for linear in targets if linear.bias]
            require(
                bool(biased),
                f"lora.bias={bias.value}: {NO_BIASES}; use lora.bias=none",
            )


def _targets(targets: object, family: Family) -> None:
    sets = ", ".join(TARGET_SETS)
    if isinstance(targets, str):
        require(
            targets in TARGET_SETS or targets in family.linears,
            f"lora.targets={targets}: no such set; there are {sets}, or a list of module names out of "
            f"{', '.join(family.linears)}",
        )
        return
    require(
        isinstance(targets, list) and targets != [] and all(isinstance(name, str) for name in targets),
        f"lora.targets must be one of {sets} or a list of module names, got {targets}",
    )
