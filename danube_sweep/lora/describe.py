"""PEFT's description of an adapter, made from its config."""

from typing import Any

from peft import LoraConfig, TaskType
from torch import nn

from danube_sweep.architecture import adapted_blocks, family_of, target_names
from danube_sweep.errors import ConfigError
from danube_sweep.model import Backbone
from danube_sweep.schema import Dora, Lora


def peft_config(config: Lora, backbone: Backbone) -> LoraConfig:
    """PEFT's description of the adapter, as it is also saved."""
    layers = int(backbone.body.config.num_hidden_layers)
    if config.last_k is not None and config.last_k > layers:
        raise ConfigError(f"lora.last_k must be at most {layers}, the model's number of blocks, got {config.last_k}")
    if config.layers is not None and max(config.layers) >= layers:
        raise ConfigError(f"lora.layers must be under {layers}, the model's number of blocks, got {config.layers}")
    chosen = config.last_k is not None or config.layers is not None
    adapted = adapted_blocks(config, layers) if chosen else None
    family = family_of(backbone.body.config.model_type)
    names = _modules(target_names(config.targets, family), backbone.body)
    if family.encoder:  # its names end alike: only a pattern of the whole name tells them apart
        where: dict[str, Any] = {"target_modules": _pattern(names, adapted)}
    else:
        pattern = None if adapted is None else "layers"
        where = {"target_modules": names, "layers_to_transform": adapted, "layers_pattern": pattern}
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=isinstance(config, Dora),
        task_type=TaskType.CAUSAL_LM if backbone.lm_head is not None else TaskType.FEATURE_EXTRACTION,
        **where,
    )


def _modules(names: list[str], body: nn.Module) -> list[str]:
    linears = [name for name, layer in body.named_modules() if hasattr(layer, "in_features")]
    missing = [name for name in names if not any(f".{there}".endswith(f".{name}") for there in linears)]
    if missing:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
        raise ConfigError(f"lora.targets={missing[0]}: the model has no such module; it has {there}")
    return names


def _pattern(names: list[str], layers: list[int] | None) -> str:
    blocks = r"\d+" if layers is None else "|".join(map(str, layers))
    own = [name if "." in name else rf"attention\.self\.{name}" for name in names]
    return rf"(.*\.)?layer\.({blocks})\.({'|'.join(own)})"
