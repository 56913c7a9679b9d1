"""Where a trial runs, writes and is logged: settings of a run, not of a trial."""

from dataclasses import dataclass

from danube_sweep.config.schema.fields import setting


@dataclass
class Device:
    accelerator: str = setting("auto, cpu or cuda", "auto")
    name: str = setting("what messages call it", "this machine")
    types: list[str] = setting("compute types it has; empty asks the machine", [])
    threads: int | None = setting("CPU threads; null leaves torch's choice", None)
    memory_gib: float | None = setting("its memory in GiB, as torch reports it; null asks the machine", None)
    memory_limit_gib: float | None = setting(
        "use no more of a GPU: a large one plays a small one (a CPU only plans with it); null for all", None
    )
    drivers_names: list[str] = setting("how the driver calls it: device=auto knows it by that", [])
    bandwidth_gb_s: float = setting("memory bandwidth in GB/s, for predicted seconds", 20.0)
    tflops_fp32: float = setting("dense rate of fp32 in TFLOP/s", 0.05)
    tflops_16bit: float = setting("dense rate of fp16 or bf16 with fp32 sums in TFLOP/s", 0.03)
    launch_us: float = setting("microseconds that starting a kernel takes the host", 10.0)
    figures: str = setting("where bandwidth and rates are from", "a guess")
    cannot_run: str | None = setting("why trials can only be planned for it; null if they can run", None)


@dataclass
class Places:
    """Where a run keeps files outside its folder."""

    checkpoints: str | None = setting(
        "a folder for checkpoints while a trial trains, such as one on a larger disk; null: the run's own",
        None,
        path="place",
    )


@dataclass
class Tracking:
    """Where results go besides the run folder."""


@dataclass
class NoTracking(Tracking):
    """The run folder alone."""


@dataclass
class WandbTracking(Tracking):
    mode: str = setting("auto (online with a key and a network, else offline), online, offline, disabled", "auto")
    project: str = setting("W&B project", "danube_sweep")
    entity: str | None = setting("W&B user or team", None)
    group: str | None = setting("W&B group", None)
    tags: list[str] = setting("W&B tags", [])
    timeout_s: float = setting("seconds to wait for the server: at the start, else at the end of a run", 8.0)
    log_predictions: bool = setting("send validation predictions (the first 5000 rows) and charts of them all", True)
    log_adapter: bool = setting("upload the adapter (lora=full: the model), waiting up to 30 timeouts", False)
