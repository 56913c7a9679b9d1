"""The checks of the device and of tracking."""

from danube_sweep.config.facts.adapters import QUANTISED, is_packed
from danube_sweep.config.facts.device_options import accelerator_of
from danube_sweep.config.require import require
from danube_sweep.config.schema import (
    Compute,
    Config,
    Device,
    FullFinetune,
    NoAdapter,
    Precision,
    Tracking,
    WandbTracking,
)
from danube_sweep.config.schema.run_fields import FIGURES
from danube_sweep.config.validate.check_training import AUTO
from danube_sweep.errors import ConfigError

ALL = "all"
"""device.count for every visible GPU."""
MPS = "mps"
"""device.accelerator of Apple's GPUs."""
SHARDED = "full"
"""device.sharding for weights that the GPUs divide."""


def validate_device(config: Config) -> None:
    """Raises ConfigError for a device that cannot be, or that lacks the compute type."""
    device: Device = config.device
    _check_accelerator(device)
    require(device.index >= 0, f"device.index must be at least 0, got {device.index}")
    require(
        device.index == 0 or device.accelerator in ("auto", "cuda"),
        f"device.index={device.index} counts GPUs, and device.accelerator={device.accelerator} uses none; "
        "use device=cuda",
    )
    require(device.gpus is None or device.gpus >= 1, f"device.gpus must be at least 1, got {device.gpus}")
    check_count(device)
    _check_sharding(config)
    known = {compute.value for compute in Compute} - {Compute.auto.value}
    require(
        set(device.types) <= known,
        f"device.types must be among {', '.join(sorted(known))}, got {device.types}",
    )
    require(
        set(device.stated) <= set(FIGURES),
        f"device.stated must be among {', '.join(FIGURES)}, got {device.stated}",
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
        "link_gb_s",
        "context_gib",
    ):
        value = getattr(device, name)
        require(value is None or value > 0, f"device.{name} must be above 0, got {value}")
    for name in ("efficiency", "attention_efficiency"):
        share = getattr(device, name)
        require(0 < share <= 1, f"device.{name} must be above 0 and at most 1, got {share}")
    check_types(config.precision, device.types, device.name)


def _check_accelerator(device: Device) -> None:
    given = device.accelerator
    require(given in ("auto", "cpu", "cuda", MPS), f"device.accelerator must be auto, cpu, cuda or mps, got {given}")
    said, instead = f"device.accelerator={given}: {device.name}", f"use device={given}"
    require(
        given in ("auto", "cuda") or not device.drivers_names,
        f"{said} is a GPU of CUDA, as it has device.drivers_names; leave it out, or {instead}",
    )
    require(
        given != MPS or device.figures != Device().figures,
        f"{said} has no figures to plan with, and cannot train; use device=mps to plan, device=cpu to train",
    )


def check_own_accelerator(device: Device) -> None:
    """Raises ConfigError for a packaged option with another accelerator; runs of earlier versions may have one."""
    given, own = device.accelerator, accelerator_of(device.name)
    require(
        own in (None, given),
        f"device.accelerator={given}: {device.name} has device.accelerator={own}; leave it out, or use device={given}",
    )


def check_count(device: Device) -> None:
    """Raises ConfigError for a device.count that cannot be."""
    count = device.count
    if count == ALL:
        return
    if count == AUTO:
        require(
            device.index == 0,
            f"device.count={AUTO} chooses among the visible GPUs, and device.index={device.index} takes one; "
            "choose them by CUDA_VISIBLE_DEVICES",
        )
        return
    whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    require(whole, f"device.count must be a number from 1 on, {ALL} or {AUTO}, got {count}")
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


def _check_sharding(config: Config) -> None:
    asked = config.device.sharding
    require(asked in ("none", SHARDED), f"device.sharding must be none or {SHARDED}, got {asked}")
    if asked != SHARDED:
        return
    said, without = f"device.sharding={SHARDED}", "device.sharding=none"
    count, storage, adapter = config.device.count, config.precision.storage, config.lora
    require(
        count != 1,
        f"{said} divides the weights among device.count GPUs, got device.count={count}; use device.count=2 or "
        f"{without}",
    )
    require(
        count != AUTO,
        f"{said} needs a number of GPUs, which device.count={AUTO} leaves open; use device.count={ALL}",
    )
    require(
        storage not in QUANTISED,
        f"{said}: precision.storage={storage.value} cannot be divided, since its scales belong to whole tensors; use "
        f"precision=bf16 or {without}",
    )
    require(
        is_packed(adapter) or isinstance(adapter, NoAdapter | FullFinetune),
        f"{said}: this adapter ({type(adapter).__name__}) trains in PEFT's layers, which read whole weights; use "
        f"lora=lora without lora.bias, lora=none or lora=full, or {without}",
    )
    require(
        not config.data.cache_prefix,
        f"{said}: data.cache_prefix=true is computed by one process, which has no whole backbone; use {without}",
    )
    require(
        not config.trainer.benchmark,
        f"{said}: trainer.benchmark={config.trainer.benchmark} is scored by one process, which has no whole backbone; "
        f"use danube-sweep benchmark afterwards, or {without}",
    )
    if isinstance(adapter, FullFinetune):
        _check_divided_training(config, said, without)


def _check_divided_training(config: Config, said: str, without: str) -> None:
    optimizer = config.optimizer
    require(
        optimizer.by_element,
        f"{said} with lora=full: this optimizer ({type(optimizer).__name__}) reads whole tensors; use "
        f"optimizer=adamw, sgd or schedulefree, or {without}",
    )
    require(
        config.precision.compute is not Compute.fp16,
        f"{said} with lora=full: precision.compute=fp16 needs a loss scale, which is not agreed over divided "
        f"gradients; use precision.compute=bf16 or fp32, or {without}",
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
    said = f"device: {device.name} can be planned for but cannot run"
    if device.accelerator == MPS:
        raise ConfigError(f"{said}: danube_sweep trains on CUDA's GPUs and on CPUs; use device=cpu")
    if device.cannot_run is not None:
        way_out = "use device=cpu, or device.cannot_run=null with a build of torch that runs it"
        raise ConfigError(f"{said}: {device.cannot_run}; {way_out}")


def check_place(device: Device) -> None:
    """Raises ConfigError for a device whose place among the GPUs is stated, in a sweep."""
    require(
        device.index == 0,
        f"device.index={device.index}: a sweep gives each slot a GPU of its own; to use this one alone, set "
        f"CUDA_VISIBLE_DEVICES={device.index}",
    )
