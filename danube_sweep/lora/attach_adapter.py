"""Makes a backbone trainable: adapters by PEFT, everything, or nothing."""

import warnings

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from danube_sweep.config.schema import Adapter, Bias, Compute, FullFinetune, LinearAdapter, Lora, NoAdapter, Olora
from danube_sweep.config.validate.check_lora import NO_BIASES
from danube_sweep.errors import ConfigError
from danube_sweep.lora.peft_configs import ADAPTER, describe_adapter, refused
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES


def attach(backbone: Backbone, config: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
    """Makes the backbone trainable as asked; returns the trainable parameters by name.

    Adapters are fp32 and start from `seed` alone; OLoRA and PiSSA also change the frozen weights, alike every time.
    Raises ConfigError for modules, layers or sizes that are not there.
    """
    match config:
        case NoAdapter():
            return {}
        case FullFinetune():
            for module in backbone.modules():
                module.requires_grad_(True)
        case LinearAdapter():
            with torch.random.fork_rng(devices=_cuda_devices(backbone)):
                torch.manual_seed(seed)
                _inject(backbone, config, describe_adapter(config, backbone, seed=seed))
            _tidy(backbone)
            _check(backbone, config)
        case _:
            raise TypeError(f"no builder for {config}")
    return {name: parameter for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def _inject(backbone: Backbone, config: LinearAdapter, description: PeftConfig) -> None:
    # Not `inject_adapter_in_model`: it takes no types whose linears share random projections.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            PEFT_TYPE_TO_TUNER_MAPPING[description.peft_type](backbone.body, description, adapter_name=ADAPTER)
        except ValueError as error:
            raise refused(config, error) from error


def _tidy(backbone: Backbone) -> None:
    for layer in backbone.body.modules():
        if isinstance(layer, BaseTunerLayer) and backbone.precision.compute is not Compute.fp32:
            layer.cast_input_dtype_enabled = False  # autocast does it; PEFT's own cast to fp32 would come on top
            _keep_type(layer, DTYPES[backbone.precision.compute])
        if hasattr(layer, "state") and getattr(layer.weight, "SCB", None) is not None:
            layer.state.SCB = None  # OLoRA reads the old scales into the state and then quantises anew
    for name, parameter in backbone.body.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)  # AdaLoRA's divisor: over 4-bit PEFT lets it train
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _keep_type(layer: BaseTunerLayer, dtype: torch.dtype) -> None:
    # Over int8 and 4 bits some of PEFT's layers give fp32 on; on a CPU, where they see no autocast, they also hand fp32
    # to linears that compute in the type of their input.
    layer.get_base_layer().register_forward_pre_hook(lambda _module, given: (given[0].to(dtype), *given[1:]))
    layer.register_forward_hook(lambda _module, _given, out: out.to(dtype))


def _check(backbone: Backbone, config: LinearAdapter) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in backbone.named_parameters()}
    match config:
        case Olora(rank=rank):
            found = min(shape[0] for name, shape in shapes.items() if ".lora_A." in name)
            if found < rank:
                raise ConfigError(f"lora.rank must be at most {found}, the narrowest target, got {rank}")
    match config:
        case Lora(bias=bias) if bias is not Bias.none:
            trained = [name for name, one in backbone.named_parameters() if one.requires_grad and "lora_" not in name]
            if not trained:
                raise ConfigError(f"lora.bias={bias.value}: {NO_BIASES}; use lora.bias=none")


def _cuda_devices(backbone: Backbone) -> list[torch.device]:
    return [backbone.device] if backbone.device.type == "cuda" else []
