"""The frozen backbone: the published weights, a local folder's, or the true architecture with random ones."""

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from danube_sweep.config.facts.architectures import FAMILIES, RELATIVE_POSITIONS
from danube_sweep.config.identity import is_random
from danube_sweep.config.model_folder import check_model_folder, pickles_left_aside
from danube_sweep.config.schema import Model, Precision, Shape
from danube_sweep.config.weights_identity import weights_identity
from danube_sweep.errors import ModelError
from danube_sweep.model import precision as precisions
from danube_sweep.model.attention import choose_attention
from danube_sweep.model.hub_download import local_folder, unusable
from danube_sweep.model.output_layer import OutputLayer, output_layer
from danube_sweep.model.quantized_cache import entry, read_or_quantise
from danube_sweep.model.sharded import Mesh, divide
from danube_sweep.model.unpadded import flatten, use_flat

log = logging.getLogger(__name__)

DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": RELATIVE_POSITIONS // 2,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
"""Settings of version 3 beyond the sizes."""


@dataclass
class Backbone:
    """The transformer that a pack of trials shares.

    `body` turns token ids into hidden states [batch, time, hidden]; `lm_head` exists only if a head needs it.
    `fingerprint` tells its weights from any others, whatever their storage type. `flat`: its rows run without padding.
    `spare_lm_head`: the output layer where no head reads it, but a benchmark scores words.
    `sharded`: its weights are divided among ranks, which pass forward and backward together.
    `capped`: whether logits of words keep the bound that the model's config gives, as they did not before version 2.
    """

    body: PreTrainedModel
    lm_head: nn.Module | None
    precision: Precision
    fingerprint: str
    flat: bool = False
    capped: bool = True
    spare_lm_head: nn.Module | None = None
    sharded: bool = False

    @property
    def hidden_size(self) -> int:
        return int(self.body.config.hidden_size)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.body.device
        return device

    @property
    def output_layer(self) -> OutputLayer | None:
        """The `lm_head` as transformers reads it; None without one."""
        if self.lm_head is None:
            return None
        return output_layer(self.lm_head, self.body.config, capped=self.capped)

    def modules(self) -> list[nn.Module]:
        return [self.body] if self.lm_head is None else [self.body, self.lm_head]

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Each parameter once, named as in a causal LM: `model.…`, and `lm_head.…` if it is not tied."""
        named = [(f"model.{name}", parameter) for name, parameter in self.body.named_parameters()]
        if self.lm_head is not None:
            named += [(f"lm_head.{name}", parameter) for name, parameter in self.lm_head.named_parameters()]
        once: dict[int, tuple[str, nn.Parameter]] = {}
        for name, parameter in named:
            once.setdefault(id(parameter), (name, parameter))
        return list(once.values())

    def hidden(
        self,
        input_ids_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        *,
        groups: int = 1,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Final hidden states [B, T, hidden], in the compute type.

        A flat backbone lays each of `groups` equal groups of rows into one row [groups, S, …], as long for all, and
        gives zeros at padding. `rows`: the rows that come out, where the blocks repeat some (shared_prefix.py).
        """
        with precisions.computing(self.precision, self.device):
            if self.flat:
                flat = flatten(mask_BT, groups)
                output = self.body(input_ids=flat.lay(input_ids_BT), use_cache=False, **flat.keywords)
                if rows is not None:
                    flat = flatten(mask_BT[rows], len(rows) * groups // len(mask_BT))
                return flat.unlay(output.last_hidden_state)
            output = self.body(input_ids=input_ids_BT, attention_mask=mask_BT.long(), use_cache=False)
        states: torch.Tensor = output.last_hidden_state
        return states


def architecture(model: Model) -> PretrainedConfig:
    """The transformers config of a model: from its shape, or from the checkpoint. Raises ModelError."""
    if is_random(model):
        return _config_from_shape(model.shape)
    folder = local_folder(model)
    check_model_folder(folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise error if isinstance(error, ModelError) else unusable(model, "config.json", error) from error


def _config_from_shape(shape: Shape) -> PretrainedConfig:
    fields: dict[str, Any] = dataclasses.asdict(shape)
    tied = fields.pop("tie_word_embeddings")
    model_type, theta = fields.pop("model_type"), fields.pop("rope_theta")
    if fields["sliding_window"] is None and model_type != "mistral":  # whose own default is 4096
        del fields["sliding_window"]
    family = FAMILIES[model_type]
    more: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": theta}, "rms_norm_eps": 1e-5}
    return AutoConfig.for_model(
        model_type,
        **fields,
        **(DEBERTA_V3 if family.encoder else more),
        tie_word_embeddings=family.tied if tied is None else tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def load_backbone(
    model: Model,
    precision: Precision,
    *,
    with_lm_head: bool,
    device: torch.device,
    flat: bool = False,
    spare: bool = False,
    mesh: Mesh | None = None,
) -> Backbone:
    """The backbone on `device`, stored and computing as asked, every weight frozen, in train mode.

    `spare`: with an output layer all the same, as `spare_lm_head`.
    `mesh`: ranks that divide its weights (sharded.py). It is then loaded in host memory.
    Raises ModelError when it cannot be found or reached, ConfigError if it is to be `flat` and cannot.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {
        "dtype": precisions.weight_dtype(precision),
        "quantization_config": precisions.quantization_config(precision),
        "device_map": {"": torch.device("cpu") if mesh is not None else device},
    }
    whole, fingerprint = _whole(model, precision, options, with_lm_head=with_lm_head or spare)
    body = whole.model if hasattr(whole, "lm_head") else whole
    last = whole.lm_head if with_lm_head or spare else None
    choose_attention(body, precision.compute, device)
    if flat:
        use_flat(body)
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # by these PEFT chooses its layers
        setattr(body, flag, getattr(whole, flag, False))
    for module in (body, *([last] if last is not None else [])):
        module.requires_grad_(False)
        module.train()
        if precisions.linear_kind(precision) == "Linear4bit":
            precisions.keep_weights_as_loaded(module)
    if precision.gradient_checkpointing:
        body.gradient_checkpointing_enable({"use_reentrant": False})
        body.disable_input_require_grads()  # or blocks below the first adapted one would be kept and run again
    lm_head, unread = (last, None) if with_lm_head else (None, last)
    if mesh is not None:
        divide(body, lm_head, mesh, device)
    return Backbone(body, lm_head, precision, fingerprint, flat, spare_lm_head=unread, sharded=mesh is not None)


def _whole(
    model: Model, precision: Precision, options: dict[str, Any], *, with_lm_head: bool
) -> tuple[PreTrainedModel, str]:
    config = architecture(model)
    source: list[Any]
    if is_random(model):
        # As a whole causal LM, so that every head sees the same weights.
        kind = AutoModel if FAMILIES[model.shape.model_type].encoder else AutoModelForCausalLM
        load = partial(_random_model, model, config, kind, options)
        source = [model.shape.meaning(), model.init_seed]
    else:
        kind = AutoModelForCausalLM if with_lm_head else AutoModel
        load = partial(_pretrained_model, model, kind, options)
        source = [weights_identity(local_folder(model))]
    if options["quantization_config"] is None:
        return load()
    place = entry([kind.__name__, source], precision, options["device_map"][""])
    return read_or_quantise(place, config, kind, options, load)


def _random_model(
    model: Model, config: PretrainedConfig, kind: Any, options: dict[str, Any]
) -> tuple[PreTrainedModel, str]:
    # Always drawn in fp32 on the CPU, so that every precision sees the same weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.init_seed)
        drawn = kind.from_config(config, dtype=torch.float32)
    described = json.dumps([model.shape.meaning(), model.init_seed], sort_keys=True).encode()
    last = drawn.lm_head if hasattr(drawn, "lm_head") else drawn.get_input_embeddings()
    sample = last.weight.detach()[:4].contiguous().numpy().tobytes()
    fingerprint = hashlib.sha256(described + sample).hexdigest()[:32]
    whole = type(drawn).from_pretrained(None, config=config, state_dict=drawn.state_dict(), **options)
    return whole, fingerprint


def _pretrained_model(model: Model, kind: Any, options: dict[str, Any]) -> tuple[PreTrainedModel, str]:
    folder = local_folder(model)
    if aside := pickles_left_aside(folder):
        log.warning("model.path=%s: %s is ignored; the safetensors are loaded", model.path, aside[0])
    try:
        whole, found = kind.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one line
            **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise unusable(model, "safetensors weights", error) from error
    # transformers would fill missing weights with random ones and only warn.
    lacking = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if lacking:
        reason = f"{lacking[0]} is missing or of another shape"
        raise ModelError(f"model.path={model.path}: the weights do not fit this model ({reason}); give a complete copy")
    return whole, weights_identity(folder)
