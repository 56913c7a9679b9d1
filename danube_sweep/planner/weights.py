"""How many parameters a trial has, and the bytes that hold them: stored, trained, and their optimizer states."""

import math
from dataclasses import dataclass, field

from danube_sweep.architecture import RELATIVE_POSITIONS, Architecture
from danube_sweep.planner.walk import FP32, Pass
from danube_sweep.schema import (
    AdamW,
    CausalHead,
    Dora,
    Head,
    LMHead,
    Lora,
    Optimizer,
    PagedAdamW8bit,
    PairPooling,
    Pooling,
    PreferenceHead,
    SequenceHead,
    Storage,
)
from danube_sweep.validate import FOUR_BIT

WEIGHTS_A_SCALE, SCALES_A_SCALE = 64, 256
"""bitsandbytes' 4-bit blocks: weights that share a scale, and scales that share one with double quantisation."""
CODES = {False: 16 * FP32, True: (16 + 256 + 1) * FP32}
"""Bytes of the code books of a 4-bit weight, without and with double quantisation."""
STATES_A_SCALE, SMALLEST_8BIT = 256, 4096
"""bitsandbytes' 8-bit optimizers: states that share a scale; tensors with fewer elements keep fp32 states."""
STEP_BYTES = 4
"""torch's AdamW counts the steps of every tensor in a tensor."""


@dataclass(frozen=True)
class Tensors:
    """Trainable tensors: elements -> how many there are with that many."""

    counts: dict[int, int] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """All elements together."""
        return sum(size * count for size, count in self.counts.items())

    def and_(self, *sizes: int, times: int = 1) -> "Tensors":
        """These and more."""
        counts = dict(self.counts)
        for size in sizes:
            counts[size] = counts.get(size, 0) + times
        return Tensors(counts)


def reads_lm_head(head: Head) -> bool:
    """Whether the head reads the backbone's own output layer."""
    return isinstance(head, CausalHead | LMHead)


def parameters(model: Architecture, head: Head) -> int:
    """Parameters of the backbone that a trial loads; an untied output layer counts where the head reads it."""
    return model.body + (model.embedding if reads_lm_head(head) and not model.tied else 0)


def stored_bytes(walk: Pass, head: Head) -> float:
    """Bytes of the backbone's weights."""
    model = walk.model
    linears = sum(_linear_bytes(walk, linear.weights, linear.outputs) for linear in model.linears) * model.layers
    return linears + (parameters(model, head) - model.linear_weights) * walk.weight_bytes


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
    """What trains of the backbone: adapters, or with lora=full every weight."""
    model, adapter, found = walk.model, walk.adapter, Tensors()
    if walk.full:
        return _all_weights(walk, head)
    if not isinstance(adapter, Lora):
        return found
    blocks = model.layers if adapter.last_k is None else min(adapter.last_k, model.layers)
    for linear in model.targets(adapter.targets):
        found = found.and_(adapter.rank * linear.inputs, adapter.rank * linear.outputs, times=blocks)
        if isinstance(adapter, Dora):
            found = found.and_(linear.outputs, times=blocks)
    return found


def _all_weights(walk: Pass, head: Head) -> Tensors:
    model, family = walk.model, walk.model.family
    weights = [linear.weights for linear in model.linears]
    biases = [linear.outputs for linear in model.linears if linear.bias]
    norm = [model.hidden] * (2 if family.encoder else 1)
    found = Tensors().and_(*weights, *biases, *(norm * family.norms), times=model.layers)
    found = found.and_(model.embedding, *(norm * (2 if family.encoder else 1)))
    if family.encoder:
        found = found.and_(RELATIVE_POSITIONS * model.hidden)
    if parameters(model, head) > model.body:
        found = found.and_(model.embedding)
    return found


def head_tensors(model: Architecture, head: Head, classes: int) -> Tensors:
    """The head's own parameters."""
    match head:
        case PreferenceHead(pooling=PairPooling.pair):
            return Tensors().and_((2 * model.hidden + 2) * classes, classes)
        case SequenceHead(pooling=Pooling.attention) | PreferenceHead(pooling=PairPooling.attention):
            return Tensors().and_(model.hidden, model.hidden * classes, classes)
        case SequenceHead() | PreferenceHead():
            return Tensors().and_(model.hidden * classes, classes)
    return Tensors()


def state_bytes(optimizer: Optimizer, tensors: Tensors, each: int) -> float:
    """Bytes of an optimizer's states over tensors of `each` bytes a number."""
    return sum(_states(optimizer, size, each) * count for size, count in tensors.counts.items())


def _states(optimizer: Optimizer, size: int, each: int) -> float:
    if isinstance(optimizer, AdamW):
        return 2 * size * each + STEP_BYTES
    if size < SMALLEST_8BIT:
        return 2 * size * FP32
    return 2 * (size + math.ceil(size / STATES_A_SCALE) * FP32)


def pages(optimizer: Optimizer) -> bool:
    """Whether its states may lie in host memory."""
    return isinstance(optimizer, PagedAdamW8bit)
