"""The plan of one trial: parameters, memory, seconds and disk, and what to change where it does not fit."""

from dataclasses import dataclass
from typing import Any

from danube_sweep.errors import ConfigError
from danube_sweep.planner.device import planned_device
from danube_sweep.planner.fit import Fit, cheapest_change, fit_of
from danube_sweep.planner.memory import counted
from danube_sweep.planner.model import planned_architecture
from danube_sweep.planner.seconds import seconds_of
from danube_sweep.schema import Config, Device

CHECKPOINTS_AT_ONCE = 3
"""The last, the best, and one that is being written."""


@dataclass(frozen=True)
class Plan:
    """What a trial would need; seconds of an epoch are None where the data are not there."""

    device: Device
    parameters: int
    trained: int
    fit: Fit
    change: str | None
    """The overrides that would make it fit; None if it fits, or if nothing does."""
    step_s: float
    """One optimizer step on rows of data.max_length tokens."""
    epoch_s: float | None
    disk_bytes: float

    def plain(self) -> dict[str, Any]:
        """For a file: bytes, seconds and words."""
        return {
            "device": self.device.name,
            "figures": self.device.figures,
            "parameters": {"all": self.parameters, "trained": self.trained},
            "memory_bytes": self.fit.memory.plain(),
            "capacity_bytes": None if self.fit.capacity_bytes is None else round(self.fit.capacity_bytes),
            "share": self.fit.share,
            "fits": self.fit.fits,
            "change": self.change,
            "cannot_run": self.device.cannot_run,
            "seconds": {"step": self.step_s, "epoch": self.epoch_s},
            "disk_bytes": round(self.disk_bytes),
        }


def plan_of(config: Config, *, rows: int | None = None, tokens_per_row: float | None = None, classes: int = 3) -> Plan:
    """The plan of a trial; `rows` of an epoch and their mean length, where they are known, give its seconds.

    Raises ModelError for a local model folder that cannot be read, ConfigError for rows longer than its positions.
    """
    model, device = planned_architecture(config.model), planned_device(config.device)
    if config.data.max_length > model.positions:
        last = f"{model.positions}, the model's last position"
        raise ConfigError(f"data.max_length must be at most {last}, got {config.data.max_length}")
    fit = fit_of(config, model, device, classes=classes)
    full_row = float(config.data.max_length)
    step_s = seconds_of(config, model, device, tokens_per_row=full_row).step
    epoch_s = None
    if rows is not None:
        usual_s = seconds_of(config, model, device, tokens_per_row=tokens_per_row or full_row).step
        epoch_s = rows / config.trainer.effective_batch * usual_s
    everything, trained = counted(config, model, classes)
    memory = fit.memory
    learnt = memory.trained or memory.weights
    return Plan(
        device,
        everything,
        trained,
        fit,
        None if fit.fits else cheapest_change(config, model, device),
        step_s,
        epoch_s,
        disk_bytes=CHECKPOINTS_AT_ONCE * (learnt + memory.optimizer + memory.paged) + learnt,
    )
