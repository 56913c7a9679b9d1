"""Where a trial runs and where it is logged: settings of a run, not of a trial."""

from dataclasses import dataclass

from danube_sweep.schema.fields import setting


@dataclass
class Device:
    accelerator: str = setting("auto, cpu or cuda", "auto")
    name: str = setting("what messages call it", "this machine")
    types: list[str] = setting("compute types it has; empty asks the machine", [])
    threads: int | None = setting("CPU threads; null leaves torch's choice", None)


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
