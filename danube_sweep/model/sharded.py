"""A backbone whose weights are divided among ranks by torch's FSDP2.

Each rank holds a part of every tensor. A block is gathered while it computes, forward and backward, and freed again.
"""

from typing import Any, Final

import torch
from torch import nn
from transformers import PreTrainedModel

Mesh = Any
"""torch's DeviceMesh of the ranks."""

ADDS_UP: Final = 1.0
"""The divisor of gradients that ranks add up: a micro-batch's loss is weighted already."""


def blocks_of(body: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a body, first to last."""
    holder: Any = body
    blocks: list[nn.Module] = list(holder.encoder.layer if hasattr(holder, "encoder") else holder.layers)
    return blocks


def divide(body: PreTrainedModel, lm_head: nn.Module | None, mesh: Mesh, device: torch.device) -> None:
    """Divides the weights of a body in host memory among the ranks of `mesh`, and moves this rank's to `device`.

    It moves a block at a time, so the device never holds more than its parts and one whole block. The output layer, and
    embeddings that are tied to it, stay whole on every rank: heads read them as often as they like.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    whole: set[nn.Parameter] = set()
    if lm_head is not None:
        lm_head.to(device)
        whole = set(lm_head.parameters())
    options: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
        "ignored_params": whole,
    }
    for block in blocks_of(body):
        fully_shard(block, **options)
    embeddings = body.get_input_embeddings()
    if not whole & set(embeddings.parameters()):
        fully_shard(embeddings, **options)
    fully_shard(body, **options)
    for module in body.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(ADDS_UP)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def is_divided(tensor: torch.Tensor) -> bool:
    """Whether this rank holds only a part of it."""
    return hasattr(tensor, "device_mesh")


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, sharing its memory; the tensor itself where it is not divided."""
    held: Any = tensor.detach()
    part: torch.Tensor = held.to_local() if is_divided(tensor) else held
    return part


def gathered(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The whole of which every rank gives its part: in the first rank's host memory, and empty on the others.

    `like` is divided in the same way. All ranks must call it.
    """
    from torch.distributed.tensor import DTensor

    way: Any = like
    divided = DTensor.from_local(
        part, way.device_mesh, way.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    whole: torch.Tensor = divided.full_tensor()
    if way.device_mesh.get_local_rank():
        return torch.empty(0, dtype=whole.dtype)  # or each rank would hold a whole model in host memory
    padded = whole.untyped_storage().nbytes() != whole.nbytes
    return whole.to("cpu", copy=padded)


def fitted(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor that every rank has, divided as `like` is; the tensor itself where `like` is whole."""
    if not is_divided(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    way: Any = like
    return distribute_tensor(whole, way.device_mesh, way.placements, src_data_rank=None)


def kind_of(module: nn.Module) -> str:
    """The name of a module's class, before its weights were divided."""
    return next(one.__name__ for one in type(module).__mro__ if one.__module__.startswith("transformers."))
