"""One assembly of backbone, adapter and head, for training, for prediction and for tests: config in, model out."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from danube_sweep import lora
from danube_sweep.config.facts.adapters import is_packed
from danube_sweep.config.facts.architectures import lies_flat
from danube_sweep.config.schema import Config, Model
from danube_sweep.head.base_head import Head
from danube_sweep.head.build_head import build_head
from danube_sweep.lora import PackedAdapter, PackedAdapters
from danube_sweep.model.backbone import Backbone, architecture, load_backbone
from danube_sweep.model.sharded import Mesh


@dataclass(frozen=True)
class AssembledModel:
    """A backbone with the adapter and the head of one trial; other trials may share the backbone."""

    config: Config
    backbone: Backbone
    head: Head
    adapter: dict[str, nn.Parameter]
    """The parameters that train besides the head's, by name."""
    packed: PackedAdapter | None
    """The adapter, if the packed operation trains it. None if the backbone holds it in PEFT's own layers, or without
    one."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter: the adapter's and the head's."""
        return {**self.adapter, **{f"head.{name}": value for name, value in self.head.named_parameters()}}


def load_base(
    config: Config,
    device: torch.device,
    *,
    weights: Model | None = None,
    padding: float = 1.0,
    spare: bool = False,
    mesh: Mesh | None = None,
) -> Backbone:
    """The trial's backbone, with an output layer if its head reads one; `weights` names another model to load.

    `spare`: with an output layer in any case, for a benchmark.
    `mesh`: ranks that divide its weights.
    `padding`: tokens of its forward passes padded over those without, by which data.layout=auto lays rows flat.
    """
    model_type = architecture(config.model).model_type
    return load_backbone(
        weights or config.model,
        config.precision,
        with_lm_head=config.head.reads_lm_head,
        device=device,
        flat=lies_flat(config.data.layout, model_type, device.type, padding),
        spare=spare,
        mesh=mesh,
    )


def assemble(
    config: Config,
    backbone: Backbone,
    *,
    classes: list[str],
    tokenizer: PreTrainedTokenizerBase,
    adapters: PackedAdapters | None,
) -> AssembledModel:
    """Draws the trial's adapter and its head over the backbone, each from the seed alone.

    Plain LoRA is drawn from `adapters`, which decide which trials are on the backbone. With None it goes into PEFT's
    own layers, like every other adapter. Raises ConfigError for an adapter or a head that does not fit the backbone.
    """
    adapter, packed = config.lora, None
    if adapters is not None and is_packed(adapter):
        packed = adapters.draw(adapter, seed=config.seed)
        trained = packed.parameters
    else:
        trained = lora.attach(backbone, adapter, seed=config.seed)
    head = build_head(
        config.head,
        hidden_size=backbone.hidden_size,
        classes=classes,
        tokenizer=tokenizer,
        lm_head=backbone.output_layer,
        seed=config.seed,
    ).to(backbone.device)
    return AssembledModel(config, backbone, head, trained, packed)
