"""A trial or a pack on several devices (device.count): the forward passes of each, and the sum of the gradients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from danube_sweep.config.facts.adapters import draws_by_row
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.schema import Config, Device
from danube_sweep.config.validate import ALL
from danube_sweep.planner.present_gpu import count_gpus
from danube_sweep.planner.symbolic_pass import FP32

BUCKET: Final = 2**25
"""Elements of the gradients that are summed at once: 128 MiB in fp32."""
PCIE_GB_S, LOOPBACK_GB_S = 10.0, 1.0
"""Guesses for device.link_gb_s: between two GPUs of unknown links, and between two processes of a CPU."""
PASSED_OVER: Final = 4
"""How often a gradient is read or written here: joined with the others, and copied back."""


@dataclass(frozen=True)
class Share:
    """The forward passes of one device in an optimizer step."""

    whole: float
    """Of a full micro-batch."""
    parts: int = 0
    """Of `rows` of a micro-batch that all devices share."""
    rows: int = 0


def count_of(device: Device) -> int:
    """How many devices train a trial together; `all` are those of the machine, and `auto` is 1 until it is chosen."""
    if device.count == ALL:
        return 1 if device.accelerator == "cpu" else device.gpus or count_gpus()
    return device.count if isinstance(device.count, int) else 1


def alone(device: Device) -> Device:
    """The device with device.count=1."""
    return replace(device, count=1)


def share_of(config: Config, model: Architecture, device: Device) -> Share:
    """The share of the device that has most to do, as `training.step_plan` deals micro-batches."""
    micro, count = config.trainer.micro_batch, count_of(device)
    if count == 1:
        return Share(config.trainer.effective_batch / micro)
    whole, left = divmod(config.trainer.effective_batch // micro, count)
    if draws_by_row(config.lora, encoder=model.family.encoder):
        return Share(whole, left, math.ceil(micro / count) if left else 0)
    return Share(whole + (left > 0), max(left - 1, 0), 1 if left > 1 else 0)  # one row for others' micro-batches


def on_each(configs: Sequence[Config], model: Architecture, device: Device) -> list[Config]:
    """The trials of a pack with the rows of a device's largest forward pass as their micro-batch."""
    shares = [share_of(config, model, device) for config in configs]
    if any(share.whole for share in shares):
        return list(configs)
    rows = max(share.rows for share in shares)
    return [replace(config, trainer=replace(config.trainer, micro_batch=rows)) for config in configs]


def link_of(device: Device) -> tuple[float, str]:
    """The GB/s between two of the devices, and what that figure is."""
    if device.link_gb_s is not None:
        return device.link_gb_s, f"device.link_gb_s={device.link_gb_s:g}"
    if device.accelerator == "cpu":
        return LOOPBACK_GB_S, f"{LOOPBACK_GB_S:g} GB/s, a guess for processes of a CPU"
    return PCIE_GB_S, f"{PCIE_GB_S:g} GB/s, a guess for PCIe"


def exchange_seconds(elements: float, tensors: float, device: Device) -> float:
    """Seconds to sum so many fp32 gradients over the devices, once a step: a ring passes each on twice."""
    count = count_of(device)
    if count == 1:
        return 0.0
    sent = 2 * (count - 1) / count * elements * FP32 / (link_of(device)[0] * 1e9)
    moved = PASSED_OVER * elements * FP32 / (device.bandwidth_gb_s * 1e9)
    return sent + moved + tensors * device.launch_us * 1e-6


def exchange_bytes(elements: float, device: Device, largest: float = 0.0) -> float:
    """Bytes of the gradients that are joined at a time: a bucket, or a tensor that is larger."""
    return 0.0 if count_of(device) == 1 else FP32 * max(min(elements, BUCKET), largest)
