"""How long a trial or a pack takes, from the configs and a device's figures: a roofline with stated efficiencies.

Arithmetic, bytes and kernel launches are counted per forward and backward pass; a pass takes the longer of computing
with moving bytes, and of launching. docs/memory.md lists the terms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from danube_sweep.config.facts.adapters import FOUR_BIT, QUANTISED
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.schema import Compute, Config, Device, Dora, Lora, Storage
from danube_sweep.planner.activations import whole_body
from danube_sweep.planner.joint_pass import distinct_batches, joint_walk, walk_of
from danube_sweep.planner.parameter_bytes import Tensors, adapter_tensors
from danube_sweep.planner.several_devices import exchange_seconds, share_of
from danube_sweep.planner.symbolic_pass import FP32, Pass

FP32_EFFICIENCY = 0.5
"""Share of a GPU's fp32 rate that products reach. In 16 bits a device states it; a CPU's figures are measured ones."""
BACKWARD_LAUNCHES = 2.0
LAUNCHES_OF_BLOCK, LAUNCHES_OF_LINEAR, LAUNCHES_OF_ADAPTER = 22, 1, 5
"""Kernels of a block besides its linears (norms, rotary, attention, activation), of a linear, of an adapter on it."""
LAUNCHES_OF_QUANTISED = {False: 1, True: 4}
"""Extra launches of a quantised linear: on a GPU, and on a CPU, where it is bitsandbytes' own Python (measured)."""
LAUNCHES_OF_HEAD = 60
"""Launches of a trial's batch, head and loss in a pass: an estimate."""
LAUNCHES_OF_UPDATE = {False: 0.7, True: 0.6}
"""Of an update of torch's fused AdamW and its clipping, for every tensor, on a GPU and on a CPU: measured on an H200's
host and on a CPU (docs/decisions/013, 011).
"""
MIXED_LENGTHS = 0.5
"""Batches that differ are padded to the longest of them: by this share times the root of their number's logarithm."""
ACTIVATIONS_MOVED = 3
"""How often tensors kept for the backward pass are moved: written, read, and as gradients."""
STATES_READ_AND_WRITTEN = 7
"""Numbers that an update moves for every trained parameter."""


@dataclass(frozen=True)
class Work:
    """What a micro-batch asks of a device: operations of products and of attention, bytes moved, kernels launched.

    `dequantised`: 4-bit weights that are written out before they are read among the bytes moved, each time.
    """

    products: float
    attention: float
    moved: float
    launches: float
    dequantised: float = 0.0
    dequantised_bytes: float = 0.0
    """Of one of these weights: read in 4 bits and written."""

    def seconds(self, device: Device, *, in_fp32: bool) -> float:
        """How long a device takes. A GPU computes while the host launches; a CPU does one after the other."""
        launching = self.launches * device.launch_us * 1e-6
        moving = self.moved / (device.bandwidth_gb_s * 1e9) + self._dequantising(device)
        rate = (device.tflops_fp32 if in_fp32 else device.tflops_16bit) * 1e12
        if device.accelerator == "cpu":
            return (self.products + self.attention) / rate + moving + launching
        of_products = FP32_EFFICIENCY if in_fp32 else device.efficiency
        of_attention = FP32_EFFICIENCY if in_fp32 else device.attention_efficiency
        return max(self.products / (rate * of_products) + self.attention / (rate * of_attention) + moving, launching)

    def _dequantising(self, device: Device) -> float:
        if device.dequantised_g_s is None:
            return self.dequantised * self.dequantised_bytes / (device.bandwidth_gb_s * 1e9)
        return self.dequantised / (device.dequantised_g_s * 1e9)


@dataclass(frozen=True)
class Seconds:
    """Predicted seconds of a micro-batch of every trial: its passes, and its share of their updates."""

    passes: float
    update: float
    micro_batches: float
    """Of a step on one device; the mean of a pack's trials. A part of a micro-batch counts by its time."""
    exchange: float = 0.0
    """Of `step`, the seconds in which several devices sum their gradients."""

    @property
    def micro_batch(self) -> float:
        """A micro-batch of every trial."""
        return self.passes + self.update

    @property
    def step(self) -> float:
        """One optimizer step of every trial."""
        return self.micro_batches * self.micro_batch


def seconds_of(config: Config, model: Architecture, device: Device, *, tokens_per_row: float) -> Seconds:
    """One optimizer step on rows of `tokens_per_row` tokens, padding included."""
    return pack_seconds([config], model, device, tokens_per_row=tokens_per_row)


def pack_seconds(configs: Sequence[Config], model: Architecture, device: Device, *, tokens_per_row: float) -> Seconds:
    """One optimizer step of trials that train together; those whose batches differ are padded to the longest row.

    `configs` have the same `pack_plan.pack_key`. With device.count, of devices that divide each step.
    """
    configs = [replace(config, device=device) for config in configs]
    first, distinct = configs[0], distinct_batches(configs)
    widened = tokens_per_row * (1 + MIXED_LENGTHS * math.sqrt(math.log(distinct)))
    row = max(tokens_per_row, min(widened, first.data.max_length))
    walk = joint_walk(configs, model, max(1, round(row)))

    def seconds(rows: int) -> float:
        tokens = row * rows * first.head.passes
        pack = _Pack(configs, walk, device, tokens, distinct)
        return _work(pack).seconds(device, in_fp32=walk.precision.compute is Compute.fp32)

    passes, shares = seconds(first.trainer.micro_batch), [share_of(config, model, device) for config in configs]
    parts = {share.rows: seconds(share.rows) / passes for share in shares if share.parts}
    steps = [share.whole + share.parts * parts.get(share.rows, 0.0) for share in shares]
    exchanges = [_exchange(config, model, device) for config in configs]
    updates = [
        (_update(config, model, device) + exchange) / step
        for config, exchange, step in zip(configs, exchanges, steps, strict=True)
    ]
    return Seconds(passes, sum(updates), sum(steps) / len(steps), sum(exchanges))


@dataclass(frozen=True)
class _Pack:
    # `tokens` of a trial's micro-batch, `distinct` batches among the trials.
    configs: Sequence[Config]
    walk: Pass
    device: Device
    tokens: float
    distinct: int

    @property
    def above(self) -> float:
        """Share of the blocks through which a gradient flows; the others run without one, once for every batch."""
        return (self.walk.model.layers - self.walk.first_adapted) / self.walk.model.layers

    @property
    def below(self) -> float:
        """Share of the other blocks, as often as they run: with data.cache_prefix in the first epoch alone."""
        config = self.configs[0]
        epochs = max(1.0, config.trainer.epochs) if config.data.cache_prefix and not config.trainer.max_steps else 1.0
        return (1 - self.above) / epochs

    @property
    def passes(self) -> float:
        """Forward, backward and perhaps forward again, through those blocks."""
        return 3.0 if self.walk.precision.gradient_checkpointing else 2.0


def work_of(config: Config, model: Architecture, *, tokens_per_row: float) -> Work:
    """What a trial's micro-batch asks of its device."""
    walk = joint_walk([config], model, max(1, round(tokens_per_row)))
    return _work(_Pack([config], walk, config.device, tokens_per_row * config.trainer.micro_batch, 1))


def _work(pack: _Pack) -> Work:
    walk, model = pack.walk, pack.walk.model
    tokens = pack.tokens * len(pack.configs)
    through = pack.above * pack.passes
    passed = pack.tokens * pack.distinct * pack.below + tokens * through
    products = 2 * model.linear_weights * passed
    for config in pack.configs:
        if config.head.predicts_tokens:
            passes = (2.0 if walk.trains else 1.0) + config.head.in_chunks
            products += 2 * model.embedding * pack.tokens * passes
        if not walk.full:
            products += 6 * _trained(config, model).elements * pack.tokens
    if walk.full:
        products += 2 * model.linear_weights * tokens
    runs = pack.below + through
    moved = weight_traffic(walk) * runs
    unpacked = model.linear_weights * runs if walk.precision.storage in FOUR_BIT else 0.0
    moved += ACTIVATIONS_MOVED * whole_body(walk).per_token * tokens
    attention = 4 * model.layers * walk.length * model.query * passed
    return Work(products, attention, moved, _launches(pack), unpacked, 0.5 + walk.compute_bytes)


def _trained(config: Config, model: Architecture) -> Tensors:
    return adapter_tensors(walk_of(config, model, 1), config.head)


def weight_traffic(walk: Pass) -> float:
    """Bytes of weights that the products of one pass read: 4-bit ones as they were dequantised."""
    weights, storage = walk.model.linear_weights, walk.precision.storage
    if storage in FOUR_BIT:
        return weights * float(walk.compute_bytes)
    if storage is Storage.int8:
        return weights * 1.0
    return weights * float(walk.weight_bytes)


def block_launches(walk: Pass) -> float:
    """Kernels of a block's forward pass, without those of adapters."""
    of_linear = LAUNCHES_OF_LINEAR
    if walk.precision.storage in QUANTISED:
        of_linear += LAUNCHES_OF_QUANTISED[walk.cpu]
    return LAUNCHES_OF_BLOCK + len(walk.model.linears) * of_linear


def _launches(pack: _Pack) -> float:
    walk = pack.walk
    adapted = len(walk.targets) if isinstance(walk.adapter, Lora) else 0
    groups = len({config.lora.rank for config in pack.configs if isinstance(config.lora, Lora)})  # products together
    adapter = groups * LAUNCHES_OF_ADAPTER * (3 if isinstance(walk.adapter, Dora) else 1)
    forward = walk.model.layers * (block_launches(walk) + adapted * adapter)
    launches = forward * (pack.below + pack.above * (BACKWARD_LAUNCHES + pack.passes - 1))
    return launches + len(pack.configs) * LAUNCHES_OF_HEAD


def _exchange(config: Config, model: Architecture, device: Device) -> float:
    trained = _trained(config, model)
    return exchange_seconds(trained.elements, sum(count for _, count in trained.counts), device)


def _update(config: Config, model: Architecture, device: Device) -> float:
    trained = _trained(config, model)
    tensors = sum(count for _, count in trained.counts)
    moved = trained.elements * STATES_READ_AND_WRITTEN * FP32 / (device.bandwidth_gb_s * 1e9)
    return moved + tensors * LAUNCHES_OF_UPDATE[device.accelerator == "cpu"] * device.launch_us * 1e-6
