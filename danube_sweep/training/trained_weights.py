"""What a trial trained, as files: an adapter for PEFT or a model for transformers, and the head."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from danube_sweep import lora
from danube_sweep.config.schema import Adapter, FullFinetune, LinearAdapter
from danube_sweep.errors import CheckpointError
from danube_sweep.head.base_head import Head
from danube_sweep.lora import PackedAdapter
from danube_sweep.model.backbone import Backbone
from danube_sweep.storage import checkpoint

ADAPTER, MODEL, HEAD = "adapter_model.safetensors", "model.safetensors", "head.safetensors"


def folder_name(config: Adapter) -> str:
    """Where in the run folder the finished product stands."""
    return "model" if isinstance(config, FullFinetune) else "adapter"


def save_trained(
    folder: Path,
    config: Adapter,
    backbone: Backbone,
    head: Head,
    base: str | None,
    packed: PackedAdapter | None = None,
) -> None:
    """Writes the trained weights of one trial into `folder`; `base` is the backbone's name for PEFT.

    An adapter is the one given, or the one that PEFT has put into the backbone.
    """
    match config:
        case LinearAdapter():
            description = lora.peft_config(config, backbone) if packed is None else packed.description()
            description.base_model_name_or_path = base
            description.inference_mode = True
            description.save_pretrained(str(folder))
            state = lora.adapter_state(backbone) if packed is None else packed.state(backbone)
            checkpoint.save_tensors(state, folder / ADAPTER)
        case FullFinetune():
            whole = _whole(backbone)
            backbone.body.config.architectures = [type(whole).__name__]
            backbone.body.config.save_pretrained(folder)
            save_model(whole, str(folder / MODEL), metadata={"format": "pt"})
    checkpoint.save_tensors(head.state_dict(), folder / HEAD)


def load_trained(
    folder: Path, config: Adapter, backbone: Backbone, head: Head, packed: PackedAdapter | None = None
) -> None:
    """Puts saved weights into the adapter given, or a backbone that was prepared by `lora.attach`, and into a head.

    Raises CheckpointError unless every weight is there, fits and is finite. The manifest is read elsewhere.
    """
    match config:
        case LinearAdapter():
            state = checkpoint.load_tensors(folder / ADAPTER)
            if packed is None:
                lora.load_adapter_state(backbone, state)
            else:
                packed.load(backbone, state)
        case FullFinetune():
            _load_exactly(_whole(backbone), checkpoint.load_tensors(folder / MODEL), folder / MODEL)
    of_head = checkpoint.load_tensors(folder / HEAD) if (folder / HEAD).is_file() else {}
    _load_exactly(head, of_head, folder / HEAD)


def _load_exactly(module: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    expected = module.state_dict()
    wrong = sorted(expected.keys() ^ state.keys()) or [
        name for name in expected if expected[name].shape != state[name].shape or not state[name].isfinite().all()
    ]
    if wrong:
        raise CheckpointError(f"{file}: {wrong[0]} is missing, of another shape or not finite; train again")
    module.load_state_dict(state)


def _whole(backbone: Backbone) -> Any:
    # The causal LM around the body, under transformers' own names, or the body alone where there is no output layer.
    if backbone.lm_head is None:
        return backbone.body
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(backbone.body.config)
    whole.model, whole.lm_head = backbone.body, backbone.lm_head
    return whole
