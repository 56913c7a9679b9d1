"""What of the backbone trains: LoRA or DoRA by PEFT, everything, or nothing."""

from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from danube_sweep.architecture import adapted_blocks, family_of, target_names
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.model import Backbone
from danube_sweep.schema import Adapter, Compute, Dora, FullFinetune, Lora, NoAdapter

ADAPTER = "default"


def attach(backbone: Backbone, config: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
    """Makes the backbone trainable as asked; returns the trainable parameters by name.

    Adapters are fp32 and start from `seed` alone. Raises ConfigError for modules or layers that are not there.
    """
    match config:
        case NoAdapter():
            return {}
        case FullFinetune():
            for module in backbone.modules():
                module.requires_grad_(True)
        case Lora():
            with torch.random.fork_rng(devices=_cuda_devices(backbone)):
                torch.manual_seed(seed)
                inject_adapter_in_model(peft_config(config, backbone), backbone.body, ADAPTER)
            _tidy(backbone)
        case _:
            raise TypeError(f"no builder for {config}")
    return {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}


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


def _tidy(backbone: Backbone) -> None:
    for layer in backbone.body.modules():
        if isinstance(layer, BaseTunerLayer) and backbone.precision.compute is not Compute.fp32:
            layer.cast_input_dtype_enabled = False  # autocast does it; PEFT's own cast to fp32 would come on top
    for parameter in backbone.body.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _cuda_devices(backbone: Backbone) -> list[torch.device]:
    return [backbone.device] if backbone.device.type == "cuda" else []


def _prefix(backbone: Backbone) -> str:
    # `PeftModel` over AutoModelForCausalLM finds the blocks under `model.`, over AutoModel at the top.
    return "base_model.model.model." if backbone.lm_head is not None else "base_model.model."


def adapter_state(backbone: Backbone) -> dict[str, torch.Tensor]:
    """The adapter's weights under the names that plain `PeftModel.from_pretrained` expects."""
    state = get_peft_model_state_dict(backbone.body, adapter_name=ADAPTER)
    return {_prefix(backbone) + name: value for name, value in state.items()}


def load_adapter_state(backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
    """Puts saved weights back. Raises CheckpointError unless exactly the expected ones are there, all finite."""
    expected = adapter_state(backbone)
    wrong = sorted(expected.keys() ^ state.keys()) or [
        name for name in expected if expected[name].shape != state[name].shape or not state[name].isfinite().all()
    ]
    if wrong:
        raise CheckpointError(f"the saved adapter does not fit: {wrong[0]} is missing, of another shape or not finite")
    names = {name.removeprefix(_prefix(backbone)): value for name, value in state.items()}
    set_peft_model_state_dict(backbone.body, names, adapter_name=ADAPTER)
