"""The device that a run is on: choosing it, its compute types, its name, the memory used."""

import ctypes
import gc
import platform
import resource
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from danube_sweep.config.schema import Device
from danube_sweep.errors import ConfigError
from danube_sweep.planner.guessed_gpu import LEGACY_BUILDS


def pick_device(config: Device) -> torch.device:
    """The device to run on, with CPU threads set as asked. Raises ConfigError if it is not there."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    gc.collect()  # left by an earlier trial of this process
    if config.accelerator != "cpu" and torch.cuda.is_available():
        return _prepared_gpu(config)
    if config.accelerator == "cuda":
        raise ConfigError(f"device.accelerator=cuda: torch sees no GPU here for {config.name}; use device=cpu")
    _keep_freed_blocks()
    return torch.device("cpu")


def _prepared_gpu(config: Device) -> torch.device:
    count = torch.cuda.device_count()
    if config.index >= count:
        raise ConfigError(
            f"device.index={config.index}: torch sees {count} GPU{'s' * (count > 1)} here, counted from 0"
        )
    check_kernels(
        torch.cuda.get_device_capability(config.index),
        torch.cuda.get_arch_list(),
        torch.cuda.get_device_name(config.index),
    )
    torch.cuda.set_device(config.index)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(config.index).total_memory
    limit = total if config.memory_limit_gib is None else config.memory_limit_gib * 2**30
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), config.index)
    return torch.device("cuda", config.index)


def check_kernels(capability: tuple[int, int], built_for: Sequence[str], name: str) -> None:
    """Raises ConfigError if this build of torch, of `torch.cuda.get_arch_list()`, has no kernels for a GPU.

    Kernels (sm_80) run on their own and later minor capabilities of the same major one, PTX (compute_90) on all later
    ones. A build for ROCm has neither.
    """
    known = [_number_of(one) for one in built_for if one.startswith(("sm_", "compute_"))]
    runs = any((ptx or built[0] == capability[0]) and built <= capability for ptx, built in known)
    if known and not runs:
        major, minor = capability
        legacy = (
            f", or {LEGACY_BUILDS} (https://download.pytorch.org/whl/cu126)" if (5, 0) <= capability < (7, 5) else ""
        )
        raise ConfigError(
            f"device: this build of torch has no kernels for {name} (compute capability {major}.{minor}, built for "
            f"{', '.join(built_for)}); use device=cpu{legacy}"
        )


def _number_of(architecture: str) -> tuple[bool, tuple[int, int]]:
    # "sm_90a" -> no PTX, (9, 0); "compute_120" -> PTX, (12, 0).
    kind, _, number = architecture.partition("_")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    return kind == "compute", (int(digits[:-1]), int(digits[-1]))


def _keep_freed_blocks() -> None:
    # glibc returns every large block to the kernel, which clears it again for the next step: a sixth of a tiny
    # model's time on a CPU (6,120 against 7,205 tokens/s). Elsewhere there is no mallopt, and nothing to do.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_threshold, 2**30)


def native_types(device: torch.device) -> list[str]:
    """The compute types that the device has in hardware; bf16 needs compute capability 8.0."""
    if device.type == "cpu":
        return ["fp32", "bf16"]
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    return ["fp32", "bf16", "fp16"] if ampere else ["fp32", "fp16"]


def describe_device(device: torch.device) -> dict[str, Any]:
    """The device's kind and name."""
    if device.type == "cpu":
        return {"kind": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {"kind": "cuda", "name": properties.name, "memory_bytes": properties.total_memory}


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used: on a GPU by torch since `pick_device`, on a CPU by the process since it began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
