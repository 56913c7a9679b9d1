"""The device that a trial is planned for: the one named, or the one that is present. Asks no torch."""

import os
from dataclasses import fields, replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from danube_sweep import paths
from danube_sweep.config.schema import Compute, Config, Device, Storage
from danube_sweep.config.validate import check_types
from danube_sweep.planner.guessed_gpu import guessed_device
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.present_gpu import PresentGpu, count_gpus, present_gpu
from danube_sweep.planner.probe_record import Key, cpu_key, gpu_key, probed, read_probe
from danube_sweep.planner.several_devices import count_of

CPU_INFO = "/proc/cpuinfo"
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SAME_CARD = 0.1
"""A driver's memory that differs from a file's by a larger share is another card's of the same name."""


def planned_device(device: Device) -> Device:
    """The device with every figure known: as configured, else as it is present here.

    What the config states of a device that is present counts instead of what was found.
    """
    if device.accelerator == "mps" or (device.accelerator == "cuda" and device.figures != Device().figures):
        return device
    gpu = None if device.accelerator == "cpu" else present_gpu(device.index)
    if gpu is None and device.accelerator == "cuda":
        gpu = PresentGpu()
    present = _host() if gpu is None else _known_gpu(gpu)
    stated = _stated(device, Device(**_described("cpu")) if gpu is None else Device())
    key = cpu_key(cpu_name(), device.threads) if gpu is None else gpu_key(gpu)
    return replace(probed(present, read_probe(key), stated), **stated)


def probe_key(device: Device) -> Key | None:
    """The key of the probe of a device that is present and not described by the config; None for any other."""
    if device.accelerator == "mps" or (device.accelerator == "cuda" and device.figures != Device().figures):
        return None
    gpu = None if device.accelerator == "cpu" else present_gpu(device.index)
    if gpu is None:
        return None if device.accelerator == "cuda" else cpu_key(cpu_name(), device.threads)
    return gpu_key(gpu)


def cpu_name() -> str | None:
    """The name that the system gives its CPU."""
    file = Path(CPU_INFO)
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def cpu_features() -> list[str]:
    """The instructions of this CPU that decide how fast it multiplies, of those that matter here."""
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "neon", "asimd", "bf16", "sve")
    flags = _cpu_flags()
    return [name for name in known if name in flags]


def slots_share(device: Device, slots: int | None) -> Device:
    """A trial's share of a device that `planned_device` has completed, with `slots` trials at a time."""
    processes = (slots or 1) * count_of(device)
    gpus = max(device.gpus or count_gpus(), count_of(device))
    sharing = processes if device.accelerator == "cpu" else ceil(processes / gpus)
    if sharing == 1 or device.memory_gib is None:
        return device
    name = f"{device.name}, shared by {sharing} {'slots' if count_of(device) == 1 else 'processes'},"
    return replace(device, memory_gib=device.memory_gib / sharing, name=name)


def capacity_bytes(device: Device) -> float | None:
    """The memory that a trial may use; None if unknown."""
    known = [gib for gib in (device.memory_gib, device.memory_limit_gib) if gib is not None]
    return min(known) * GIB if known else None


def with_compute(config: Config) -> Config:
    """The config with precision.compute=auto replaced: by what the weights are stored in, else by the device's type.

    That is bf16 where it is native or nobody knows, fp16 on other GPUs and fp32 on other CPUs: it follows from what the
    device is, never from how fast it was. Raises ConfigError for a type that the device lacks.
    """
    precision = config.precision
    if precision.compute is not Compute.auto:
        return config
    stored = {Storage.bf16: Compute.bf16, Storage.fp16: Compute.fp16}
    settled = replace(precision, compute=stored.get(precision.storage) or _natural_compute(config.device))
    check_types(settled, config.device.types, config.device.name)
    return replace(config, precision=settled)


def _natural_compute(device: Device) -> Compute:
    known = planned_device(device)
    if known.accelerator == "cpu":
        return Compute.bf16 if {"amx_bf16", "avx512_bf16"} & _cpu_flags() else Compute.fp32
    return next((Compute(name) for name in ("bf16", "fp16") if name in known.types), Compute.bf16)


def _stated(device: Device, described: Device) -> dict[str, Any]:
    # What was given, or is neither the default nor what the option's own file says.
    plain = Device()
    return {
        one.name: value
        for one in fields(Device)
        if (value := getattr(device, one.name)) not in (getattr(plain, one.name), getattr(described, one.name))
        or one.name in device.stated
    }


def _host() -> Device:
    described = {**_described("cpu"), "tflops_16bit": _rate_of_bf16(), "memory_gib": _host_bytes() / GIB}
    return Device(**described)


def _rate_of_bf16() -> float:
    # Of one core, measured: with AMX tiles, with bf16 products in AVX-512, without either.
    flags = _cpu_flags()
    return 0.6 if "amx_bf16" in flags else 0.11 if "avx512_bf16" in flags else 0.03


def _cpu_flags() -> set[str]:
    file = Path(CPU_INFO)
    return set(file.read_text(errors="replace").split()) if file.is_file() else set()


@lru_cache(maxsize=1)
def _host_bytes() -> float:
    limits = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for file in map(Path, CGROUP_LIMITS):
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            limits.append(float(text))
    return min(limits)


def option_of(gpu: PresentGpu) -> str | None:
    """The packaged option that describes a GPU; None if its figures are a guess."""
    return _options_by_name().get(gpu.name or "")


def _known_gpu(gpu: PresentGpu) -> Device:
    option = option_of(gpu)
    if option is None:
        return guessed_device(gpu)
    device, gib = Device(**_described(option)), gpu.memory_gib
    if gib is None or device.memory_gib is None:
        return device
    same = abs(gib / device.memory_gib - 1) <= SAME_CARD
    return replace(device, memory_gib=min(gib, device.memory_gib) if same else gib)


@lru_cache(maxsize=1)
def _options_by_name() -> dict[str, str]:
    # The packaged options, by the driver's name of the GPU.
    stems = [file.stem for file in sorted((paths.conf_dir() / "device").glob("*.yaml"))]
    return {name: stem for stem in stems for name in _described(stem).get("drivers_names", [])}


@lru_cache(maxsize=32)
def _described(option: str) -> dict[str, Any]:
    text = (paths.conf_dir() / "device" / f"{option}.yaml").read_text(encoding="utf-8")
    return {key: value for key, value in yaml.safe_load(text).items() if key != "defaults"}
