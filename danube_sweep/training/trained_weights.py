"""The trained weights as files: an adapter for PEFT or a model for transformers, and the head."""

from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save_model
from torch import nn

from danube_sweep import lora
from danube_sweep.config.schema import Adapter, FullFinetune, LinearAdapter, NoAdapter
from danube_sweep.errors import CheckpointError
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.causal_lm import causal_lm
from danube_sweep.model.sharded import fitted, gathered, is_divided, kind_of, own_part
from danube_sweep.storage import checkpoint
from danube_sweep.training.assemble import AssembledModel

ADAPTER, MODEL, HEAD = "adapter_model.safetensors", "model.safetensors", "head.safetensors"


def folder_name(config: Adapter) -> str:
    """Where in the run folder the finished product stands."""
    return "model" if isinstance(config, FullFinetune) else "adapter"


def save_trained(folder: Path, model: AssembledModel, whole: dict[str, torch.Tensor] | None = None) -> None:
    """Writes the trained weights of one trial into `folder`; PEFT finds its backbone under `model.path`.

    `whole`: the weights of lora=full where ranks divide them, from `gather` or `gathered_in`.
    """
    match model.config.lora:
        case LinearAdapter() as adapter:
            backbone, packed = model.backbone, model.packed
            description = lora.peft_config(adapter, backbone) if packed is None else packed.description()
            description.base_model_name_or_path = model.config.model.path
            description.inference_mode = True
            description.save_pretrained(str(folder))
            state = lora.adapter_state(backbone) if packed is None else packed.state(backbone)
            checkpoint.save_tensors(state, folder / ADAPTER)
        case FullFinetune():
            body, module = model.backbone.body, _whole(model.backbone)
            body.config.architectures = [kind_of(module)]
            body.config.save_pretrained(folder)
            saved = module if whole is None else _Named(whole)
            save_model(saved, str(folder / MODEL), metadata={"format": "pt"})
        case NoAdapter():
            pass
        case other:
            raise TypeError(f"no weights of {other} to save")
    checkpoint.save_tensors(model.head.state_dict(), folder / HEAD)


def gather(model: AssembledModel) -> dict[str, torch.Tensor]:
    """All weights that lora=full trains, whole, where ranks divide them. All ranks must call it.

    Divided ones come to the first rank's host memory, and are empty elsewhere. Whole ones stay where they are.
    """
    named = _whole(model.backbone).state_dict(keep_vars=True)
    found = {id(one): gathered(own_part(one), one) if is_divided(one) else one.detach() for one in named.values()}
    return {name: found[id(one)] for name, one in named.items()}


def gathered_in(folder: Path, model: AssembledModel) -> dict[str, torch.Tensor] | None:
    """The same from a checkpoint, without the other ranks; None where nothing is divided."""
    divided = model.backbone.sharded and isinstance(model.config.lora, FullFinetune)
    return checkpoint.load_tensors(folder / MODEL) if divided else None


@final
class _Named(nn.Module):
    """Tensors that are saved as a model's."""

    def __init__(self, named: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._named = named

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return dict(self._named)


def load_trained(folder: Path, model: AssembledModel) -> None:
    """Puts saved weights into the trial's adapter and its head.

    Raises CheckpointError unless every weight is there, fits and is finite. The manifest is read elsewhere.
    """
    match model.config.lora:
        case LinearAdapter():
            state = checkpoint.load_tensors(folder / ADAPTER)
            if model.packed is None:
                lora.load_adapter_state(model.backbone, state)
            else:
                model.packed.load(model.backbone, state)
        case FullFinetune():
            module = _whole(model.backbone)
            _load_exactly(module, _with_tied(module, checkpoint.load_tensors(folder / MODEL)), folder / MODEL)
        case NoAdapter():
            pass
        case other:
            raise TypeError(f"no weights of {other} to load")
    of_head = checkpoint.load_tensors(folder / HEAD) if (folder / HEAD).is_file() else {}
    _load_exactly(model.head, of_head, folder / HEAD)


def _with_tied(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A file has a tied tensor under one of its names.
    named = module.state_dict(keep_vars=True)
    present = {id(named[name]): value for name, value in state.items() if name in named}
    return {**{name: present[id(one)] for name, one in named.items() if id(one) in present}, **state}


def _load_exactly(module: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    expected = module.state_dict()
    wrong = sorted(expected.keys() ^ state.keys()) or [
        name for name in expected if expected[name].shape != state[name].shape or not state[name].isfinite().all()
    ]
    if wrong:
        raise CheckpointError(f"{file}: {wrong[0]} is missing, of another shape or not finite; train again")
    module.load_state_dict({name: fitted(value, expected[name]) for name, value in state.items()})


def _whole(backbone: Backbone) -> Any:
    # The causal LM around the body, under transformers' own names, or the body alone without an output layer.
    return backbone.body if backbone.lm_head is None else causal_lm(backbone)
