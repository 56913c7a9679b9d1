"""Promises that are checked while a pack trains, because breaking them shows in no loss curve."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from danube_sweep.config.schema import Adapter, FullFinetune
from danube_sweep.errors import GuardError
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES, linear_kind, weight_dtype
from danube_sweep.model.sharded import is_divided, own_part
from danube_sweep.training.ranks import Ranks

SAMPLE = 4096
"""Elements of each frozen tensor that `frozen_digest` reads."""
WHOLE = 2**22
"""Elements of the largest trained tensor that `check_alike` reads whole."""


def check_trainable(config: Adapter, backbone: Mapping[str, nn.Parameter], head: nn.Module) -> None:
    """Raises GuardError unless every trainable parameter is fp32 (lora=full aside) and no head is quantised."""
    for name, parameter in backbone.items():
        if parameter.dtype is not torch.float32 and not isinstance(config, FullFinetune):
            raise GuardError(f"{name} trains in {parameter.dtype}, not in fp32")
    for name, parameter in head.named_parameters():
        if parameter.dtype is not torch.float32:
            raise GuardError(f"the head's {name} is {parameter.dtype}, not fp32")


def check_precision(backbone: Backbone) -> None:
    """Raises GuardError unless the linears have the configured storage and all other weights the type beside it."""
    asked, kinds = linear_kind(backbone.precision), {"Linear", "Linear4bit", "Linear8bitLt"}
    # PEFT's wrappers bear the same names as the layers they hold; some have linears of their own.
    wrapped = tuple(f"{name}." for name, layer in backbone.body.named_modules() if hasattr(layer, "base_layer"))
    for name, layer in backbone.body.named_modules():
        if hasattr(layer, "base_layer") or type(layer).__name__ not in kinds:
            continue
        if name.startswith(wrapped) and not name.endswith(".base_layer"):
            continue
        if type(layer).__name__ != asked:
            raise GuardError(f"{name} is a {type(layer).__name__}, asked for was {asked}")
    embedding = backbone.body.get_input_embeddings().weight
    if embedding.dtype is not weight_dtype(backbone.precision):
        raise GuardError(f"the embeddings are {embedding.dtype}, asked for was {weight_dtype(backbone.precision)}")


@contextmanager
def compute_checked(backbone: Backbone) -> Iterator[None]:
    """Inside, raises GuardError if the backbone's linears compute in another type than the config's."""
    asked = DTYPES[backbone.precision.compute]
    kind = linear_kind(backbone.precision)
    # PEFT's wrappers bear the same names as the layers they hold.
    layers = (layer for layer in backbone.body.modules() if not hasattr(layer, "base_layer"))
    linear = next(layer for layer in layers if type(layer).__name__ == kind)

    def check(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if output.dtype is not asked:
            raise GuardError(f"the backbone computes in {output.dtype}, asked for was {asked}")

    hook = linear.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def check_train_mode(backbone: Backbone) -> None:
    """Raises GuardError if part of the backbone is in eval mode, which silently disables dropout and checkpointing."""
    for name, module in backbone.body.named_modules():
        if not module.training:
            raise GuardError(f"{name or 'the backbone'} is in eval mode while it trains")


def check_alike(models: Sequence[Mapping[str, nn.Parameter]], ranks: Ranks) -> None:
    """Raises GuardError unless every rank has the same trained weights: each bit of adapters and heads.

    Weights that the ranks divide are left out.

    Of tensors of more than `WHOLE` elements, which lora=full has, 4096 elements spread over each are compared.
    """
    if ranks.count == 1:
        return
    trained = (one for model in models for one in model.items() if not is_divided(one[1]))
    own = _digest(trained, whole=WHOLE)
    if len(set(ranks.each(own))) > 1:
        raise GuardError("the ranks of this trial have different weights")


def check_gradients(parameters: Mapping[str, nn.Parameter]) -> None:
    """Raises GuardError unless every trainable parameter got a gradient."""
    for name, parameter in parameters.items():
        if parameter.requires_grad and parameter.grad is None:
            raise GuardError(f"{name} got no gradient")


def frozen_digest(backbone: Backbone) -> str:
    """A hash over every frozen tensor and its scales (up to 4096 elements spread over each, and its layout)."""
    return _digest(_frozen(backbone))


def _digest(tensors: Iterable[tuple[str, torch.Tensor]], *, whole: int = SAMPLE) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        tensor = tensor.detach()
        flat = tensor.reshape(-1)
        elements = flat.numel() if flat.numel() <= whole else SAMPLE
        step = max(1, flat.numel() // max(1, elements))
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat[::step][:elements].contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return digest.hexdigest()


def _frozen(backbone: Backbone) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            continue
        name = name.replace(".base_layer.", ".")  # a trial that enters a pack may wrap more of the linears
        yield name, own_part(parameter)
        state = getattr(parameter, "quant_state", None)
        scales = {} if state is None else state.as_dict()
        yield from ((f"{name}.{key}", value) for key, value in scales.items() if isinstance(value, torch.Tensor))
    for name, layer in backbone.body.named_modules():
        if type(layer).__name__ == "Linear8bitLt" and not hasattr(layer, "base_layer"):
            # bitsandbytes moves the scales from the weight to the layer in the first forward pass.
            yield (
                f"{name.removesuffix('.base_layer')}.SCB",
                layer.weight.SCB if layer.state.SCB is None else layer.state.SCB,
            )


def check_frozen(before: str, backbone: Backbone) -> None:
    """Raises GuardError if the bytes of the frozen backbone have changed."""
    if frozen_digest(backbone) != before:
        raise GuardError("the frozen backbone's weights changed while training")
