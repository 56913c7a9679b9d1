"""How long a trial takes, from its config and a device's figures: a roofline with stated efficiencies.

Arithmetic, bytes and kernel launches are counted per forward and backward pass; a pass takes the longer of computing
with moving bytes, and of launching. docs/memory.md says what is counted.
"""

from dataclasses import dataclass

from danube_sweep.adapters import FOUR_BIT, QUANTISED
from danube_sweep.architecture import Architecture
from danube_sweep.planner.activations import whole_body
from danube_sweep.planner.memory import walk_of
from danube_sweep.planner.walk import FP32, Pass
from danube_sweep.planner.weights import adapter_tensors
from danube_sweep.schema import Compute, Config, Device, Dora, LMHead, Lora, Storage

EFFICIENCY = 0.5
"""Share of the dense rate that matrix products of these shapes reach on a GPU; a CPU's figures are measured ones."""
BACKWARD_LAUNCHES = 2.0
LAUNCHES_OF_BLOCK, LAUNCHES_OF_LINEAR, LAUNCHES_OF_ADAPTER = 22, 1, 5
"""Kernels of a block besides its linears (norms, rotary, attention, activation), of a linear, of an adapter on it."""
ACTIVATIONS_MOVED = 3
"""How often what is kept for the backward pass is moved: written, read, and as gradients."""
STATES_READ_AND_WRITTEN = 7
"""Numbers that an update moves for every trained parameter."""


@dataclass(frozen=True)
class Seconds:
    """Predicted seconds of one optimizer step, and of the passes and the update in it."""

    passes: float
    update: float

    @property
    def step(self) -> float:
        """One optimizer step."""
        return self.passes + self.update


def seconds_of(config: Config, model: Architecture, device: Device, *, tokens_per_row: float) -> Seconds:
    """One optimizer step on rows of `tokens_per_row` tokens, padding included."""
    walk = walk_of(config, model, max(1, round(tokens_per_row)))
    rows = config.trainer.micro_batch * config.head.passes
    micro_batches = config.trainer.effective_batch / config.trainer.micro_batch
    above = _share_with_gradients(walk)
    computing = _computing(walk, device, rows * tokens_per_row, above, config)
    launching = _launching(walk, device, above, config)
    trained = adapter_tensors(walk, config.head).elements
    update = trained * STATES_READ_AND_WRITTEN * FP32 / (device.bandwidth_gb_s * 1e9)
    # A GPU computes while the host launches; a CPU does one after the other.
    passes = computing + launching if device.accelerator == "cpu" else max(computing, launching)
    return Seconds(micro_batches * passes, update)


def _share_with_gradients(walk: Pass) -> float:
    # Blocks through which a gradient flows.
    return (walk.model.layers - walk.first_adapted) / walk.model.layers


def _computing(walk: Pass, device: Device, tokens: float, above: float, config: Config) -> float:
    model = walk.model
    products = 2 * model.linear_weights * tokens
    if isinstance(config.head, LMHead):
        products += 2 * model.embedding * tokens
    products += 4 * model.layers * tokens * walk.length * model.query
    adapters = 6 * adapter_tensors(walk, config.head).elements * tokens if not walk.full else 0.0
    again = 1.0 if config.precision.gradient_checkpointing else 0.0
    weights = 2 * model.linear_weights * tokens if walk.full else 0.0
    total = products * (1 + above * (1 + again)) + adapters + weights
    rate = device.tflops_fp32 if config.precision.compute is Compute.fp32 else device.tflops_16bit
    efficiency = EFFICIENCY if device.accelerator != "cpu" else 1.0
    moved = _weight_traffic(walk) * (1 + above * (1 + again))
    moved += ACTIVATIONS_MOVED * whole_body(walk).per_token * tokens
    return total / (rate * 1e12 * efficiency) + moved / (device.bandwidth_gb_s * 1e9)


def _weight_traffic(walk: Pass) -> float:
    # Bytes of weights that one pass moves: read, and if quantised written out and read again.
    weights, storage = walk.model.linear_weights, walk.precision.storage
    if storage in FOUR_BIT:
        return weights * (0.5 + 2 * walk.compute_bytes)
    if storage is Storage.int8:
        return weights * 1.0
    return weights * float(walk.weight_bytes)


def _launching(walk: Pass, device: Device, above: float, config: Config) -> float:
    linears = len(walk.model.linears)
    own = 2 if walk.precision.storage in QUANTISED else 1
    adapted = len(walk.model.targets(walk.adapter.targets)) if isinstance(walk.adapter, Lora) else 0
    adapter = LAUNCHES_OF_ADAPTER * (3 if isinstance(walk.adapter, Dora) else 1)
    forward = LAUNCHES_OF_BLOCK + linears * LAUNCHES_OF_LINEAR * own + adapted * adapter
    again = 1.0 if config.precision.gradient_checkpointing else 0.0
    return walk.model.layers * forward * (1 + above * (BACKWARD_LAUNCHES + again)) * device.launch_us * 1e-6
