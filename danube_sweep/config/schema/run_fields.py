"""Where a trial runs, writes and is logged: settings of a run, not of a trial."""

from dataclasses import dataclass
from typing import Any, Final

from danube_sweep.config.schema.fields import setting

FIGURES: Final = (
    "bandwidth_gb_s",
    "tflops_fp32",
    "tflops_16bit",
    "dequantised_g_s",
    "efficiency",
    "attention_efficiency",
    "context_gib",
    "launch_us",
    "cannot_run",
)
"""Fields of a device whose default may be meant: for the others it asks the machine, or there is nothing to ask."""


@dataclass
class Device:
    accelerator: str = setting("auto, cpu, cuda or mps (planned only)", "auto")
    index: int = setting("which of the visible GPUs, counted from 0; in a sweep each slot has its own", 0)
    count: Any = setting("GPUs that train each trial or pack together: a number, all, or auto (by prediction)", 1)
    sharding: str = setting("full: those GPUs divide the backbone's weights (FSDP); none: each holds them all", "none")
    gpus: int | None = setting("GPUs of the machine; null asks the machine", None)
    name: str = setting("name in messages", "this machine")
    types: list[str] = setting("supported compute types; empty asks the machine", [])
    threads: int | None = setting("CPU threads; null uses torch's default", None)
    memory_gib: float | None = setting("memory in GiB, as torch reports it; null asks the machine", None)
    memory_limit_gib: float | None = setting(
        "limit of the GPU memory used, to imitate a smaller GPU (on a CPU, only the plan uses it); null for no limit",
        None,
    )
    drivers_names: list[str] = setting(
        "names that the driver reports, by which device=auto recognises a packaged option; name yours", []
    )
    bandwidth_gb_s: float = setting("memory bandwidth in GB/s, for predicted seconds", 20.0)
    tflops_fp32: float = setting("dense fp32 rate in TFLOP/s", 0.05)
    tflops_16bit: float = setting("dense fp16 or bf16 rate with fp32 sums, in TFLOP/s", 0.03)
    dequantised_g_s: float | None = setting(
        "4-bit weights dequantised, in billions a second; null follows from the bandwidth", None
    )
    link_gb_s: float | None = setting(
        "GB/s from one GPU to another, for the seconds of device.count; null guesses PCIe", None
    )
    efficiency: float = setting("share of a GPU's 16-bit rate that matrix products reach", 0.5)
    attention_efficiency: float = setting("share of a GPU's 16-bit rate that attention reaches", 0.5)
    context_gib: float = setting("memory in GiB that a GPU's driver takes for a process", 0.5)
    launch_us: float = setting("microseconds that the host needs to start a kernel", 10.0)
    figures: str = setting("source of bandwidth and rates", "a guess")
    cannot_run: str | None = setting("reason why trials can only be planned for it; null if they can run", None)
    stated: list[str] = setting("figures that count before those found here; a command adds those that it gives", [])

    @property
    def guessed(self) -> bool:
        """Whether its rates are nobody's figures: what follows from them decides nothing that memory can decide."""
        return self.figures.startswith("a guess")


@dataclass
class Places:
    """Where a run keeps files outside its folder."""

    checkpoints: str | None = setting(
        "folder of the checkpoints while a trial trains, for example on a larger disk; null uses the run's folder",
        None,
        path="place",
    )


@dataclass
class Tracking:
    """Where results go besides the run folder."""


@dataclass
class NoTracking(Tracking):
    """Only the run folder."""


@dataclass
class TensorboardTracking(Tracking):
    """TensorBoard's event files, in the run folder."""


@dataclass
class WandbTracking(Tracking):
    mode: str = setting(
        "auto (online with a key and a network, otherwise offline), online, offline or disabled", "auto"
    )
    project: str = setting("W&B project", "danube_sweep")
    entity: str | None = setting("W&B user or team", None)
    group: str | None = setting("W&B group", None)
    tags: list[str] = setting("W&B tags", [])
    timeout_s: float = setting("seconds to wait for the server at the start and at the end of a run", 8.0)
    log_predictions: bool = setting("send validation predictions (the first 5000 rows) and charts of all of them", True)
    share: bool = setting("under W&B agents: one process of this machine trains the trials of all, in packs", False)
    log_adapter: bool = setting("upload the adapter (the model for lora=full), waiting up to 30 timeouts", False)
