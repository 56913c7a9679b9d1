"""The weights of an export: the adapter as PEFT reads it, or the whole model with the adapter merged in.

Axes: O outputs and I inputs of a linear layer.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
)

from danube_sweep.errors import ConfigError
from danube_sweep.head import formulas
from danube_sweep.head.one_class import Classifier
from danube_sweep.inference.export.how_to_read import (
    HiddenStates,
    LabelWordLogits,
    LoadedSequenceClassifier,
    LoadedTokenClassifier,
    NextToken,
    Reading,
)
from danube_sweep.inference.predict import Trained
from danube_sweep.model.backbone import Backbone
from danube_sweep.storage import checkpoint
from danube_sweep.storage.files import read_json
from danube_sweep.training import trained_weights
from danube_sweep.training.evaluate import evaluating

ADAPTER_CONFIG = "adapter_config.json"
_BODY, _INSIDE = "base_model.model.", "base_model.model.model."
"""Where PEFT finds the blocks of an `AutoModel`, and of a model that has one inside."""
_INPUTS_AT_ONCE = 512


# ------------------------------------------------------------------------------------------------- the adapter


def peft_type(source: Path) -> str | None:
    """PEFT's name for the kind of adapter in a folder; None without one."""
    file = source / ADAPTER_CONFIG
    return str(read_json(file)["peft_type"]) if file.is_file() else None


def write_adapter(source: Path, folder: Path, trained: Trained, reading: Reading, base: str) -> None:
    """The run's adapter from `source`, with the head as `score` where the reading is a sequence classifier."""
    described = read_json(source / ADAPTER_CONFIG)
    described |= {"base_model_name_or_path": base, "revision": trained.config.model.revision}
    if isinstance(reading, LoadedSequenceClassifier):
        described |= {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
        state = checkpoint.load_tensors(source / trained_weights.ADAPTER)
        moved = {_INSIDE + name.removeprefix(_BODY): value for name, value in state.items()}
        checkpoint.save_tensors({**moved, **_score(trained, reading)}, folder / trained_weights.ADAPTER)
    else:
        shutil.copyfile(source / trained_weights.ADAPTER, folder / trained_weights.ADAPTER)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _score(trained: Trained, reading: LoadedSequenceClassifier) -> dict[str, torch.Tensor]:
    # With a bias it is a transformers Conv1D, whose weight is [I, O]. PEFT silently drops a bias that its model has no
    # place for, and stops at a weight of another shape.
    weight_OI = trained.head.get_parameter(f"{reading.layer}.weight")
    if not reading.biased:
        return {f"{_BODY}score.weight": weight_OI}
    return {
        f"{_BODY}score.weight": weight_OI.T,
        f"{_BODY}score.bias": trained.head.get_parameter(f"{reading.layer}.bias"),
    }


# ---------------------------------------------------------------------------------------------- the whole model


def write_whole(folder: Path, trained: Trained, reading: Reading, dtype: torch.dtype) -> None:
    """config.json and model.safetensors of the model that the reading names, the adapter merged in, in `dtype`.

    Raises ConfigError for an adapter that is no change of linear layers.
    """
    config = exported_config(trained, reading)
    config.dtype = dtype
    with torch.device("meta"):
        empty = _kind(reading).from_config(config, dtype=dtype)
    config.architectures = [type(empty).__name__]
    config.save_pretrained(folder)
    with evaluating(trained.backbone, trained.head):  # without the adapter's dropout
        state = {name: value.to("cpu", dtype) for name, value in _merged(trained, reading, empty)}
    checkpoint.save_tensors(state, folder / trained_weights.MODEL, {"format": "pt"})


def _kind(reading: Reading) -> Any:
    match reading:
        case NextToken() | LabelWordLogits():
            return AutoModelForCausalLM
        case LoadedSequenceClassifier():
            return AutoModelForSequenceClassification
        case LoadedTokenClassifier():
            return AutoModelForTokenClassification
        case HiddenStates():
            return AutoModel
    raise TypeError(f"{reading} is not read from a whole model")


def exported_config(trained: Trained, reading: Reading) -> PretrainedConfig:
    """The backbone's config as other tools need it: unquantised, with the classes and the padding token."""
    config: Any = copy.deepcopy(trained.backbone.body.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = int(trained.tokenizer.pad_token_id)
    if hasattr(config, "final_logit_softcapping") and not trained.backbone.capped:
        config.final_logit_softcapping = None  # the run was trained without it
    if trained.classes and not isinstance(reading, NextToken | LabelWordLogits):
        config.id2label = dict(enumerate(trained.classes))
        config.label2id = {name: number for number, name in enumerate(trained.classes)}
        if isinstance(trained.head, Classifier):
            config.problem_type = "single_label_classification"
    return config


def _merged(trained: Trained, reading: Reading, empty: Any) -> Iterator[tuple[str, torch.Tensor]]:
    # Every tensor of the model `empty`, from the backbone or the head.
    inside = "" if type(empty) is type(trained.backbone.body) else f"{empty.base_model_prefix}."
    tied = set(empty.all_tied_weights_keys or {}) if empty.config.tie_word_embeddings else set()
    for name in empty.state_dict():
        owner, _, leaf = name.rpartition(".")
        if name in tied:
            continue
        if name.startswith(inside):
            yield name, _of_backbone(trained.backbone, owner.removeprefix(inside), leaf)
        elif owner == "lm_head" and trained.backbone.lm_head is not None:
            yield name, trained.backbone.lm_head.get_parameter(leaf)
        else:  # a classifier's last layer: score, or classifier in DeBERTa
            assert isinstance(reading, LoadedSequenceClassifier | LoadedTokenClassifier)
            yield name, trained.head.get_parameter(f"{reading.layer}.{leaf}")


def _of_backbone(backbone: Backbone, owner: str, leaf: str) -> torch.Tensor:
    layer = backbone.body.get_submodule(owner)
    if isinstance(layer, BaseTunerLayer) or _is_quantised(layer):
        return dense_weight(layer, owner) if leaf == "weight" else _base(layer, owner).bias
    tensor: torch.Tensor = getattr(layer, leaf)
    return tensor


@torch.no_grad()
def dense_weight(layer: nn.Module, name: str) -> torch.Tensor:
    """weight_OI, in fp32, of the linear map that an adapted or quantised layer computes.

    The unit vectors go through the layer one by one. So quantised weights come out dequantised, with any linear adapter
    added. Raises ConfigError if the layer is not linear, or if its adapter changes the bias.
    """
    base = _base(layer, name)
    with _in_fp32(layer, base):
        weight_OI, bias_O = _pushed(layer, base)
        if (exact_OI := _int8_weight(base)) is not None:  # its forward pass rounds
            weight_OI += exact_OI - _pushed(base, base)[0]
        if not torch.equal(bias_O, base(torch.zeros(1, base.in_features, device=base.weight.device))[0]):
            raise ConfigError(f"--merge: the adapter changes the bias of {name}; export without --merge")
    return weight_OI


def _base(layer: nn.Module, name: str) -> nn.Linear:
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    if not isinstance(base, nn.Linear):
        raise ConfigError(f"--merge: {name} has an adapter on a {type(base).__name__}; export without --merge")
    return base


def _pushed(layer: nn.Module, base: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    device = base.weight.device
    bias_O = layer(torch.zeros(1, base.in_features, device=device))[0]
    columns = []
    for first in range(0, base.in_features, _INPUTS_AT_ONCE):
        rows = min(_INPUTS_AT_ONCE, base.in_features - first)
        units = torch.zeros(rows, base.in_features, device=device)
        units[torch.arange(rows), first + torch.arange(rows)] = 1
        columns.append(layer(units) - bias_O)
    return torch.cat(columns).T, bias_O


@contextmanager
def _in_fp32(layer: nn.Module, base: nn.Linear) -> Iterator[None]:
    # A 16-bit layer takes no fp32 input; its values are the same in fp32. The hooks that keep an adapter in the compute
    # type would round.
    before, hooks = base.weight.dtype, (base._forward_pre_hooks, layer._forward_hooks)
    kept = [dict(one) for one in hooks]
    for one in hooks:
        one.clear()
    if not _is_quantised(base):
        base.float()
    try:
        yield
    finally:
        if not _is_quantised(base):
            base.to(before)
        for one, some in zip(hooks, kept, strict=True):
            one.update(some)


def _is_quantised(layer: nn.Module) -> bool:
    return type(layer).__name__ in ("Linear4bit", "Linear8bitLt")


def _int8_weight(base: nn.Linear) -> torch.Tensor | None:
    if type(base).__name__ != "Linear8bitLt":
        return None
    quantised: Any = base
    weight = quantised.weight
    scales_O = weight.SCB if weight.SCB is not None else quantised.state.SCB
    return torch.as_tensor(weight.data.float() * scales_O.float().unsqueeze(1) / 127)


# ----------------------------------------------------------------------------------------------------- the head


def write_head(folder: Path, trained: Trained, described: dict[str, Any]) -> None:
    """head.json, head.safetensors and head.py, the formula in plain torch."""
    (folder / "head.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    checkpoint.save_tensors(trained.head.state_dict(), folder / trained_weights.HEAD)
    shutil.copyfile(formulas.__file__, folder / "head.py")
