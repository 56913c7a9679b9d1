"""Figures for a GPU that no file of conf/device describes, from what its driver says of it."""

from dataclasses import dataclass

from danube_sweep.config.schema import Device
from danube_sweep.planner.present_gpu import PresentGpu

LAUNCH_US = 35.0
"""As measured on an H200's host: it is the host that starts kernels."""


@dataclass(frozen=True)
class Generation:
    """GPUs from a compute capability on. A core adds and multiplies fp32 once a cycle."""

    capability: float
    cores: int
    """Of a multiprocessor."""
    flops_16bit: int
    """Of a multiprocessor in a cycle, dense, with fp32 sums."""
    multiprocessors: int
    clock_ghz: float
    bandwidth_gb_s: float
    """The last three are those of a small card, for a driver that does not say."""


GENERATIONS = (
    Generation(10.0, 128, 8192, 148, 1.8, 4000),  # before 12.0: the two are different lines
    Generation(12.0, 128, 1024, 30, 2.4, 400),
    Generation(9.0, 128, 4096, 114, 1.7, 2000),
    Generation(8.9, 128, 1024, 34, 2.3, 270),
    Generation(8.6, 128, 1024, 28, 1.7, 360),
    Generation(8.0, 64, 2048, 56, 1.4, 900),
    Generation(7.5, 64, 1024, 30, 1.5, 300),
    Generation(7.0, 64, 1024, 80, 1.4, 900),
    Generation(6.1, 128, 256, 20, 1.6, 250),  # its fp16 is slower than its fp32
    Generation(6.0, 64, 256, 56, 1.3, 700),
)
HALVED = "GeForce"
"""Cards of this name sum in fp32 at half the rate of the same chip's other cards."""
WITHOUT_FLASH = 0.08
"""Share of the 16-bit rate that attention reaches below compute capability 8.0: fitted to published runs on T4s."""
BF16_FROM, KERNELS_FROM = 8.0, 7.5
"""Compute capabilities: bf16 in hardware; kernels in the builds of torch that are pinned (CUDA 12.8 and later)."""

LEGACY_BUILDS, LEGACY_FROM = "torch's builds for CUDA 12.6", 5.0
"""With kernels for compute capabilities from so much on; the last of them are those of torch 2.14."""


def generation_of(capability: float | None) -> Generation:
    """The generation of a compute capability; the oldest that runs where nobody knows it."""
    known = 7.5 if capability is None else capability
    at_most = [one for one in GENERATIONS if one.capability <= known]
    return max(at_most, key=lambda one: one.capability, default=GENERATIONS[-1])


def guessed_device(gpu: PresentGpu) -> Device:
    """The device of a GPU that is not in the table, its figures marked as a guess."""
    kind = generation_of(gpu.capability)
    multiprocessors = gpu.cores / kind.cores if gpu.cores else kind.multiprocessors
    clock = gpu.clock_ghz or kind.clock_ghz
    halved = 2 if HALVED in (gpu.name or "") else 1
    bus = None if gpu.bus_bits is None or gpu.memory_clock_ghz is None else gpu.bus_bits / 8 * gpu.memory_clock_ghz * 2
    native = gpu.capability is not None and gpu.capability >= BF16_FROM
    known = gpu.capability is not None
    return Device(
        accelerator="cuda",
        name=f"a {gpu.name}" if gpu.name else "the GPU here",
        types=["fp32", *(["bf16"] if native else []), "fp16"] if known else [],
        memory_gib=gpu.memory_gib,
        bandwidth_gb_s=round(bus or kind.bandwidth_gb_s, 1),
        tflops_fp32=round(multiprocessors * kind.cores * 2 * clock / 1000, 1),
        tflops_16bit=round(multiprocessors * kind.flops_16bit / halved * clock / 1000, 1),
        attention_efficiency=Device().attention_efficiency if native or not known else WITHOUT_FLASH,
        launch_us=LAUNCH_US,
        figures=_source(gpu),
        cannot_run=_why_not(gpu.capability),
    )


def _source(gpu: PresentGpu) -> str:
    known = [
        "" if gpu.capability is None else f"compute capability {gpu.capability:g}",
        "" if gpu.cores is None else f"{gpu.cores} cores",
        "" if gpu.clock_ghz is None else f"{gpu.clock_ghz:g} GHz",
    ]
    said = ", ".join(one for one in known if one) or "nothing that its driver says"
    return f"a guess from {said}"


def _why_not(capability: float | None) -> str | None:
    if capability is None or capability >= KERNELS_FROM:
        return None
    others = f", only {LEGACY_BUILDS} do" if capability >= LEGACY_FROM else ""
    return f"the pinned torch has no kernels for it (compute capability {capability:g}){others}"
