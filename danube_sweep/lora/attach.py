"""Makes a backbone trainable: builders, one for each kind of adapter."""

import torch
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from danube_sweep.lora.describe import peft_config
from danube_sweep.lora.state import ADAPTER
from danube_sweep.model import Backbone
from danube_sweep.schema import Adapter, Compute, FullFinetune, Lora, NoAdapter


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


def _tidy(backbone: Backbone) -> None:
    for layer in backbone.body.modules():
        if isinstance(layer, BaseTunerLayer) and backbone.precision.compute is not Compute.fp32:
            layer.cast_input_dtype_enabled = False  # autocast does it; PEFT's own cast to fp32 would come on top
    for parameter in backbone.body.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _cuda_devices(backbone: Backbone) -> list[torch.device]:
    return [backbone.device] if backbone.device.type == "cuda" else []
