"""The device that a trial is planned for: the one named, or the one that is present. Asks no torch."""

import dataclasses
import os
import shutil
import subprocess
from functools import lru_cache
from glob import glob
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from danube_sweep import paths
from danube_sweep.config.schema import Device
from danube_sweep.planner.memory import GIB

CPU_INFO = "/proc/cpuinfo"
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
VISIBLE = "CUDA_VISIBLE_DEVICES"
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")
SHARE_FOR_TORCH = 0.985
"""Of the memory that the driver reports: the rest is the driver's."""


def planned_device(device: Device) -> Device:
    """The device with every figure known: as configured, else as it is present here."""
    found = None if device.accelerator == "cpu" else _present_gpu()
    named = device.figures != Device().figures
    if device.accelerator == "cuda" and (named or found is None):
        return device
    present = found or _host()
    return dataclasses.replace(
        present,
        threads=device.threads,
        memory_gib=device.memory_gib or present.memory_gib,
        memory_limit_gib=device.memory_limit_gib,
        cannot_run=device.cannot_run,
    )


def slots_share(device: Device, slots: int | None) -> Device:
    """A trial's share of a device that `planned_device` has completed, with `slots` trials at a time."""
    sharing = ceil((slots or 1) / count_gpus()) if device.accelerator != "cpu" else slots or 1
    if sharing == 1 or device.memory_gib is None:
        return device
    name = f"{device.name}, shared by {sharing} slots,"
    return dataclasses.replace(device, memory_gib=device.memory_gib / sharing, name=name)


def capacity_bytes(device: Device) -> float | None:
    """The memory that a trial may use; None if unknown."""
    known = [gib for gib in (device.memory_gib, device.memory_limit_gib) if gib is not None]
    return min(known) * GIB if known else None


def has_gpu_files() -> bool:
    """Whether the system shows a GPU, visible to CUDA or not."""
    return bool(glob("/dev/nvidia[0-9]*") or glob("/dev/dxg") or glob("/dev/kfd"))


def named_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, None without it. CUDA ignores what follows an empty name or -1."""
    if VISIBLE not in os.environ:
        return None
    names = [name.strip() for name in os.environ[VISIBLE].split(",")]
    return list(takewhile(lambda name: name not in ("", "-1"), names))


@lru_cache(maxsize=1)
def count_gpus() -> int:
    """How many GPUs CUDA may use here, at least one: trials in more slots than that share them."""
    if (named := named_gpus()) is not None:
        return max(1, len(named))
    if shutil.which(QUERY[0]) is None:
        return 1
    try:
        listed = subprocess.run([QUERY[0], "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return 1
    return max(1, len(listed.stdout.splitlines()))


def _host() -> Device:
    described = {**_described("cpu"), "tflops_16bit": _rate_of_bf16(), "memory_gib": _host_bytes() / GIB}
    return Device(**described)


def _rate_of_bf16() -> float:
    # Of one core, measured: with AMX tiles, with bf16 products in AVX-512, without either.
    flags = Path(CPU_INFO)
    known = flags.read_text(errors="replace") if flags.is_file() else ""
    return 0.6 if "amx_bf16" in known else 0.11 if "avx512_bf16" in known else 0.03


@lru_cache(maxsize=1)
def _host_bytes() -> float:
    limits = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for file in map(Path, CGROUP_LIMITS):
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            limits.append(float(text))
    return min(limits)


@lru_cache(maxsize=1)
def _present_gpu() -> Device | None:
    # The first one that CUDA may use.
    if shutil.which(QUERY[0]) is None:
        return Device(accelerator="cuda", name="the GPU here") if glob("/dev/nvidia[0-9]*") else None
    named = named_gpus()
    if named == []:
        return None
    first = "0" if named is None else named[0]
    try:
        answer = subprocess.run([*QUERY, f"--id={first}"], capture_output=True, text=True, timeout=20, check=True)
        name, mebibytes, capability = (word.strip() for word in answer.stdout.splitlines()[0].split(","))
        return _known_gpu(name, float(mebibytes) / 1024 * SHARE_FOR_TORCH, float(capability))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _known_gpu(name: str, gib: float, capability: float) -> Device:
    for file in sorted((paths.conf_dir() / "device").glob("*.yaml")):
        described = _described(file.stem)
        if name in described.get("drivers_names", []):
            return dataclasses.replace(Device(**described), memory_gib=min(gib, described["memory_gib"]))
    types = ["fp32", "bf16", "fp16"] if capability >= 8 else ["fp32", "fp16"]
    return Device(accelerator="cuda", name=f"a {name}", types=types, memory_gib=gib)


def _described(option: str) -> dict[str, Any]:
    text = (paths.conf_dir() / "device" / f"{option}.yaml").read_text(encoding="utf-8")
    return {key: value for key, value in yaml.safe_load(text).items() if key != "defaults"}
