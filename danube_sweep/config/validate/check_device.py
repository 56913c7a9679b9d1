"""The checks of the device and of tracking."""

from danube_sweep.config.facts.adapters import QUANTISED
from danube_sweep.config.require import require
from danube_sweep.config.schema import Compute, Config, Device, Precision, Tracking, WandbTracking
from danube_sweep.errors import ConfigError

ALL = "all"
"""device.count for every visible GPU."""


def validate_device(config: Config) -> None:
    """Raises ConfigError for a device that cannot be, or that lacks the compute type."""
    device: Device = config.device
    names = ("auto", "cpu", "cuda", "mps")
    require(device.accelerator in names, f"device.accelerator must be auto, cpu, cuda or mps, got {device.accelerator}")
    require(
        device.accelerator != "cpu" or not device.drivers_names,
        f"device.accelerator=cpu: {device.name} is a GPU; use device=cpu",
    )
    require(device.index >= 0, f"device.index must be at least 0, got {device.index}")
    require(
        device.index == 0 or device.accelerator in ("auto", "cuda"),
        f"device.index={device.index} counts GPUs, and device.accelerator={device.accelerator} uses none; "
        "use device=cuda",
    )
    require(device.gpus is None or device.gpus >= 1, f"device.gpus must be at least 1, got {device.gpus}")
    check_count(device)
    known = {compute.value for compute in Compute} - {Compute.auto.value}
    require(
        set(device.types) <= known,
        f"device.types must be among {', '.join(sorted(known))}, got {device.types}",
    )
    require(
        device.threads is None or device.threads >= 1,
        f"device.threads must be at least 1, got {device.threads}",
    )
    for name in (
        "memory_gib",
        "memory_limit_gib",
        "bandwidth_gb_s",
        "tflops_fp32",
        "tflops_16bit",
        "launch_us",
        "dequantised_g_s",
        "context_gib",
    ):
        value = getattr(device, name)
        require(value is None or value > 0, f"device.{name} must be above 0, got {value}")
    for name in ("efficiency", "attention_efficiency"):
        share = getattr(device, name)
        require(0 < share <= 1, f"device.{name} must be above 0 and at most 1, got {share}")
    check_types(config.precision, device.types, device.name)


def check_count(device: Device) -> None:
    """Raises ConfigError for a device.count that cannot be."""
    count = device.count
    if count == ALL:
        return
    whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    require(whole, f"device.count must be a number from 1 on or {ALL}, got {count}")
    require(
        count == 1 or device.index == 0,
        f"device.count={count} takes the first {count} visible GPUs, device.index={device.index} one; "
        "choose them by CUDA_VISIBLE_DEVICES",
    )
    require(
        count == 1 or device.accelerator != "cpu" or device.threads is not None,
        f"device.count={count}: a CPU is one device, whose threads train a trial together; leave it out, or give "
        f"device.threads for {count} processes with so many threads each",
    )
    require(
        device.gpus is None or count <= device.gpus,
        f"device.count={count}: {device.name} has device.gpus={device.gpus}",
    )


def validate_tracking(tracking: Tracking) -> None:
    """Raises ConfigError for values that W&B does not accept."""
    modes = ("auto", "online", "offline", "disabled")
    if isinstance(tracking, WandbTracking):
        require(tracking.mode in modes, f"tracking.mode must be one of {', '.join(modes)}, got {tracking.mode}")
        require(
            tracking.timeout_s > 0,
            f"tracking.timeout_s must be above 0, got {tracking.timeout_s}; "
            "to wait for no server use tracking.mode=offline",
        )
        for tag in tracking.tags:
            require(1 <= len(tag) <= 64, f"tracking.tags: W&B takes 1 to 64 characters, {tag!r} has {len(tag)}")


def check_types(precision: Precision, types: list[str], device: str) -> None:
    """Raises ConfigError if `device` does not have the compute type, naming one that it has."""
    asked = precision.compute.value
    if not types or asked in types or precision.compute is Compute.auto:
        return
    other = next(name for name in ("bf16", "fp16", "fp32") if name in types)
    way_out = (
        f"precision.compute={other}"
        if precision.storage in QUANTISED
        else f"precision={other} or precision=nf4 precision.compute={other}"
    )
    raise ConfigError(f"precision.compute={asked}: {device} does not support {asked}; use {way_out}")


def check_runs(device: Device) -> None:
    """Raises ConfigError for a device that trials can only be planned for."""
    if device.cannot_run is not None:
        raise ConfigError(f"device: {device.name} can be planned for but cannot run: {device.cannot_run}")


def check_place(device: Device) -> None:
    """Raises ConfigError for a device whose place among the GPUs is stated, in a sweep."""
    require(
        device.index == 0,
        f"device.index={device.index}: a sweep gives each slot a GPU of its own; to use this one alone, set "
        f"CUDA_VISIBLE_DEVICES={device.index}",
    )
