"""The GPU that CUDA may use here, as its driver describes it. Asks no torch, and starts no CUDA in this process."""

import ctypes
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from itertools import takewhile

VISIBLE = "CUDA_VISIBLE_DEVICES"
SMI, FORMAT = "nvidia-smi", "--format=csv,noheader,nounits"
QUERY = (
    "--query-gpu=name,memory.total,compute_cap,clocks.max.sm,clocks.max.memory,pci.bus_id,power.limit,driver_version"
)
NVML = "libnvidia-ml.so.1"
NODES = "/dev/nvidia[0-9]*"
SHARE_FOR_TORCH = 0.985
"""Of the memory that the driver reports: the rest is the driver's."""


@dataclass(frozen=True)
class PresentGpu:
    """What a driver says of a GPU; None is what it does not say."""

    name: str | None = None
    memory_gib: float | None = None
    capability: float | None = None
    clock_ghz: float | None = None
    memory_clock_ghz: float | None = None
    cores: int | None = None
    bus_bits: int | None = None
    power_limit_w: float | None = None
    driver: str | None = None


def has_gpu_files() -> bool:
    """Whether the system shows a GPU, visible to CUDA or not."""
    return bool(glob(NODES) or glob("/dev/dxg") or glob("/dev/kfd"))


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
    listed = _smi("--list-gpus") or ""
    return max(1, sum(line.startswith("GPU ") for line in listed.splitlines()))  # parts of a GPU are indented


@lru_cache(maxsize=8)
def present_gpu(index: int = 0) -> PresentGpu | None:
    """The GPU with this place among those that CUDA may use; None where there is none.

    A driver that does not answer leaves every figure unknown.
    """
    named = named_gpus()
    if named is not None and index >= len(named):
        return None
    answer = _smi(QUERY, FORMAT, f"--id={index if named is None else named[index]}")
    if answer is None:
        return PresentGpu() if glob(NODES) else None
    words = [word.strip() for word in (answer.splitlines() or [""])[0].split(",")]
    name, mebibytes, capability, clock, memory_clock, bus, power, driver = (*words, *[""] * 8)[:8]
    memory, (cores, bits) = _number(mebibytes), _asked_of_nvml(bus)
    return PresentGpu(
        name or None,
        None if memory is None else memory / 1024 * SHARE_FOR_TORCH,
        _number(capability),
        _scaled(clock),
        _scaled(memory_clock),
        cores,
        bits,
        _number(power),
        driver or None,
    )


def _smi(*words: str) -> str | None:
    if shutil.which(SMI) is None:
        return None
    try:
        return subprocess.run([SMI, *words], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _number(word: str) -> float | None:
    with suppress(ValueError):
        return float(word)
    return None


def _scaled(mega: str) -> float | None:
    number = _number(mega)
    return None if number is None else number / 1000


def _asked_of_nvml(bus: str) -> tuple[int | None, int | None]:
    # Cores and the bits of the memory's bus, which nvidia-smi does not print.
    try:
        library = ctypes.CDLL(NVML)
        if library.nvmlInit_v2() != 0:
            return None, None
    except (OSError, AttributeError):
        return None, None
    try:
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(handle)) != 0:
            return None, None
        ask = (library.nvmlDeviceGetNumGpuCores, library.nvmlDeviceGetMemoryBusWidth)
        cores, bits = (_counted(function, handle) for function in ask)
        return cores, bits
    except AttributeError:  # an old driver
        return None, None
    finally:
        library.nvmlShutdown()


def _counted(function: "ctypes._FuncPointer", handle: ctypes.c_void_p) -> int | None:
    number = ctypes.c_uint()
    return number.value if function(handle, ctypes.byref(number)) == 0 and number.value else None


def others_on_gpu(index: int = 0) -> int:
    """How many processes compute on a GPU, as far as its driver says."""
    named = named_gpus()
    if named is not None and index >= len(named):
        return 0
    place = index if named is None else named[index]
    listed = _smi("--query-compute-apps=pid", FORMAT, f"--id={place}") or ""
    return sum(line.strip().isdigit() for line in listed.splitlines())
