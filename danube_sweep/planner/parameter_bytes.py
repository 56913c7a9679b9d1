"""How many parameters a trial has, and the bytes that hold them: stored, trained, and their optimizer states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from danube_sweep.config import offered_options
from danube_sweep.config.facts.adapters import FOUR_BIT
from danube_sweep.config.facts.architectures import RELATIVE_POSITIONS, Architecture
from danube_sweep.config.schema import Adalora, Adapter, Bias, Head, LinearAdapter, Lora, Optimizer, Storage
from danube_sweep.planner.adapter_shapes import frozen_bytes, trained_shapes
from danube_sweep.planner.symbolic_pass import FP32, Pass

WEIGHTS_A_SCALE, SCALES_A_SCALE = 64, 256
"""bitsandbytes' 4-bit blocks: weights that share a scale, and scales that share one with double quantisation."""
CODES = {False: 16 * FP32, True: (16 + 256 + 1) * FP32}
"""Bytes of the code books of a 4-bit weight, without and with double quantisation."""
SMALLEST_PAGED = 100_000
"""bitsandbytes pages the states of tensors from this many elements on."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensors:
    """Trainable tensors: shape -> how many there are of it. Embeddings and heads' are `outer`."""

    inner: Mapping[Shape, int] = field(default_factory=dict)
    outer: Mapping[Shape, int] = field(default_factory=dict)

    @property
    def counts(self) -> list[tuple[Shape, int]]:
        """Every shape with its number."""
        return [*self.inner.items(), *self.outer.items()]

    @property
    def elements(self) -> int:
        """All elements together."""
        return sum(math.prod(shape) * count for shape, count in self.counts)

    def and_(self, *shapes: Shape, times: int = 1) -> "Tensors":
        """These and more."""
        return replace(self, inner=_added(self.inner, shapes, times))

    def and_outer(self, *shapes: Shape) -> "Tensors":
        """These and embeddings, or a head's."""
        return replace(self, outer=_added(self.outer, shapes, 1))


def _added(counts: Mapping[Shape, int], shapes: Sequence[Shape], times: int) -> dict[Shape, int]:
    more = dict(counts)
    for shape in shapes:
        more[shape] = more.get(shape, 0) + times
    return more


def parameters(model: Architecture, head: Head) -> int:
    """Parameters of the backbone that a trial loads; an untied output layer counts where the head reads it."""
    return model.body + (model.embedding if head.reads_lm_head and not model.tied else 0)


def stored_bytes(walk: Pass, head: Head) -> float:
    """Bytes of the backbone's weights, and of an adapter's untrained tensors."""
    model = walk.model
    linears = sum(_linear_bytes(walk, linear.weights, linear.outputs) for linear in model.linears) * model.layers
    return linears + (parameters(model, head) - model.linear_weights) * walk.weight_bytes + frozen_bytes(walk)


def _linear_bytes(walk: Pass, weights: int, outputs: int) -> float:
    precision = walk.precision
    if precision.storage is Storage.int8:
        return weights + outputs * FP32
    if precision.storage not in FOUR_BIT:
        return weights * walk.weight_bytes
    scales = math.ceil(weights / WEIGHTS_A_SCALE)
    of_scales = scales + math.ceil(scales / SCALES_A_SCALE) * FP32 if precision.double_quant else scales * FP32
    return weights / 2 + of_scales + CODES[precision.double_quant]


def adapter_tensors(walk: Pass, head: Head) -> Tensors:
    """The trained part of the backbone: adapters, or with lora=full every weight."""
    model, adapter, found = walk.model, walk.adapter, Tensors()
    if walk.full:
        return _all_weights(walk, head)
    if not isinstance(adapter, LinearAdapter):
        return found
    for linear in walk.targets:
        last = linear.name == model.family.mlp[-1]
        found = found.and_(*trained_shapes(adapter, linear, feedforward=last), times=len(walk.adapted))
    return _with_biases(found, walk)


def _with_biases(found: Tensors, walk: Pass) -> Tensors:
    model = walk.model
    match walk.adapter:
        case Lora(bias=Bias.lora_only):
            shapes: list[Shape] = [(linear.outputs,) for linear in walk.targets if linear.bias]
            return found.and_(*shapes, times=len(walk.adapted))
        case Lora(bias=Bias.all):
            norms = model.family.norms if model.family.encoder else 0
            shapes = [*((linear.outputs,) for linear in model.linears if linear.bias), *([(model.hidden,)] * norms)]
            found = found.and_(*shapes, times=model.layers)
            return found.and_(*([(model.hidden,)] * 2)) if norms else found
    return found


def _all_weights(walk: Pass, head: Head) -> Tensors:
    model, family = walk.model, walk.model.family
    weights: list[Shape] = [(linear.outputs, linear.inputs) for linear in model.linears]
    biases: list[Shape] = [(linear.outputs,) for linear in model.linears if linear.bias]
    norm: list[Shape] = [(model.hidden,)] * (2 if family.encoder else 1)
    found = Tensors().and_(*weights, *biases, *(norm * family.norms), times=model.layers)
    found = found.and_(*(norm * (2 if family.encoder else 1))).and_outer((model.vocab, model.hidden))
    if family.encoder:
        found = found.and_outer((RELATIVE_POSITIONS, model.hidden))
    if parameters(model, head) > model.body:
        found = found.and_((model.vocab, model.hidden))
    return found


def head_tensors(model: Architecture, head: Head, classes: int) -> Tensors:
    """The head's own parameters."""
    found, hidden = Tensors(), model.hidden
    offered = offered_options.head_shapes(head, hidden, classes)
    return found.and_outer(*(head.shapes(hidden, classes) if offered is None else offered))


def state_bytes(optimizer: Optimizer, tensors: Tensors, each: int) -> float:
    """Bytes of an optimizer's states over tensors of `each` bytes a number."""
    inner = sum(_states(optimizer, shape, each, outer=False) * count for shape, count in tensors.inner.items())
    return inner + sum(_states(optimizer, shape, each, outer=True) * count for shape, count in tensors.outer.items())


def _states(optimizer: Optimizer, shape: Shape, each: int, *, outer: bool) -> float:
    size = math.prod(shape)
    offered = offered_options.states(optimizer)
    if offered is not None:
        return offered * size * each
    return optimizer.state_bytes(shape, each, outer=outer)


def allocation_bytes(adapter: Adapter, tensors: Tensors) -> float:
    """Bytes of AdaLoRA's importance, its mean and its mean change for every trained number."""
    return 3.0 * FP32 * tensors.elements if isinstance(adapter, Adalora) else 0.0


def paged_bytes(optimizer: Optimizer, tensors: Tensors, each: int) -> float:
    """Bytes of the states that may lie in host memory: those of large tensors, with an optimizer that pages."""
    if not optimizer.paged:
        return 0.0
    return state_bytes(optimizer, Tensors(_large(tensors.inner), _large(tensors.outer)), each)


def _large(counts: Mapping[Shape, int]) -> dict[Shape, int]:
    return {shape: count for shape, count in counts.items() if math.prod(shape) >= SMALLEST_PAGED}
