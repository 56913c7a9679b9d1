"""Which linears of a backbone an adapter is put on: the targets of the config matched to the model's modules."""

from typing import Any

from torch import nn

from danube_sweep.config.facts.architectures import Family, adapted_blocks, family_of, target_names
from danube_sweep.config.schema import Ia3, LinearAdapter, Lora
from danube_sweep.config.validate.check_lora import check_blocks
from danube_sweep.errors import ConfigError
from danube_sweep.model.backbone import Backbone


def adapted_modules(config: LinearAdapter, backbone: Backbone) -> dict[str, Any]:
    """PEFT's fields that say which linears of which blocks are adapted, from lora.targets, last_k and layers.

    Raises ConfigError for a target or a block that the model lacks.
    """
    layers = int(backbone.body.config.num_hidden_layers)
    check_blocks(config, layers)
    chosen = config.last_k is not None or config.layers is not None
    adapted = adapted_blocks(config, layers) if chosen else None
    family = family_of(backbone.body.config.model_type)
    names = _modules(target_names(config.targets, family), backbone.body)
    # An encoder's names end alike: only a pattern of the whole name tells them apart. Not every type takes layers.
    if family.encoder or (chosen and not isinstance(config, Lora)):
        return {"target_modules": _pattern(names, adapted, family)}
    if not chosen:
        return {"target_modules": names}
    return {"target_modules": names, "layers_to_transform": adapted, "layers_pattern": "layers"}


def feedforward_modules(config: Ia3, backbone: Backbone) -> str | list[str]:
    """PEFT's `feedforward_modules` of IA3."""
    # The linear that ends the feed-forward has its inputs scaled, which are the activations between its linears.
    family = family_of(backbone.body.config.model_type)
    last = [name for name in target_names(config.targets, family) if name == family.mlp[-1]]
    return _pattern(last, None, family) if family.encoder and last else last


def _modules(names: list[str], body: nn.Module) -> list[str]:
    linears = [name for name, layer in body.named_modules() if hasattr(layer, "in_features")]
    missing = [name for name in names if not any(f".{there}".endswith(f".{name}") for there in linears)]
    if missing:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
        raise ConfigError(f"lora.targets={missing[0]}: the model has no such module; it has {there}")
    return names


def _pattern(names: list[str], layers: list[int] | None, family: Family) -> str:
    blocks = r"\d+" if layers is None else "|".join(map(str, layers))
    if not family.encoder:
        return rf"(.*\.)?layers\.({blocks})\.\w+\.({'|'.join(names)})"
    own = [name if "." in name else rf"attention\.self\.{name}" for name in names]
    return rf"(.*\.)?layer\.({blocks})\.({'|'.join(own)})"
