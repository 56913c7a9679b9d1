"""The plan of one trial: parameters, memory, seconds and disk, and the change that makes it fit."""

import math
from dataclasses import dataclass
from typing import Any

from danube_sweep.config import offered_options
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.schema import Config, Device, FullFinetune
from danube_sweep.config.validate import check_types
from danube_sweep.planner.memory import counted
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device, slots_share
from danube_sweep.planner.several_devices import Share, alone, count_of, link_of, share_of
from danube_sweep.planner.step_seconds import Seconds, seconds_of
from danube_sweep.planner.what_fits import Fit, cheapest_change, fit_of

CHECKPOINTS_AT_ONCE = 3
"""The last, the best, and one that is being written."""


@dataclass(frozen=True)
class OnSeveral:
    """What each of several devices does in a step of full rows, and the same step on one."""

    count: int
    share: Share
    exchange_s: float
    link: str
    """The GB/s between two of them, and what that figure is."""
    alone_step_s: float
    alone: Fit

    def plain(self) -> dict[str, Any]:
        """For a file."""
        return {
            "count": self.count,
            "micro_batches": self.share.whole,
            "parts": self.share.parts,
            "rows_of_a_part": self.share.rows,
            "exchange_s": self.exchange_s,
            "link": self.link,
            "alone": {"step_s": self.alone_step_s, "memory_bytes": round(self.alone.memory.total)},
        }


@dataclass(frozen=True)
class TrialPlan:
    """The needs of a trial; seconds of an epoch are None if the data is missing."""

    device: Device
    storage: str
    compute: str
    parameters: int
    trained: int
    fit: Fit
    change: str | None
    """The overrides that would make it fit; None if it fits, or if nothing does."""
    step_s: float
    """One optimizer step on rows of data.max_length tokens."""
    epoch_s: float | None
    training_s: float | None
    """All epochs or steps, validation not counted."""
    micro_batch: int
    effective_batch: int
    disk_bytes: float
    estimated: list[str]
    """The guessed parts, because an installed package does not state them."""
    several: OnSeveral | None = None
    """With device.count."""

    def plain(self) -> dict[str, Any]:
        """For a file: bytes, seconds and words."""
        return {
            "device": self.device.name,
            "figures": self.device.figures,
            "storage": self.storage,
            "compute": self.compute,
            "parameters": {"all": self.parameters, "trained": self.trained},
            "memory_bytes": self.fit.memory.plain(),
            "capacity_bytes": None if self.fit.capacity_bytes is None else round(self.fit.capacity_bytes),
            "share": self.fit.share,
            "fits": self.fit.fits,
            "verdict": self.fit.verdict,
            "change": self.change,
            "cannot_run": self.device.cannot_run,
            "seconds": {"step": self.step_s, "epoch": self.epoch_s, "training": self.training_s},
            "micro_batch": self.micro_batch,
            "effective_batch": self.effective_batch,
            "peak_in": self.fit.memory.moment,
            "disk_bytes": round(self.disk_bytes),
            "estimated": self.estimated,
            **({} if self.several is None else {"devices": self.several.plain()}),
        }


def plan_of(
    config: Config,
    *,
    rows: int | None = None,
    tokens_per_row: float | None = None,
    classes: int = 3,
    slots: int | None = None,
) -> TrialPlan:
    """The plan of a trial; `rows` of an epoch and their mean length, where they are known, give its seconds.

    `slots` trials at a time share the device.

    Raises ModelError for a local model folder that cannot be read, ConfigError for a type that the device lacks.
    """
    model, device = planned_architecture(config.model), slots_share(planned_device(config.device), slots)
    check_types(config.precision, device.types, device.name)
    fit = fit_of(config, model, device, classes=classes)
    full_row = float(config.data.max_length)
    step = seconds_of(config, model, device, tokens_per_row=full_row)
    epoch_s = training_s = None
    trainer = config.trainer
    if rows is not None:
        usual_s = seconds_of(config, model, device, tokens_per_row=tokens_per_row or full_row).step
        epoch_s = rows / trainer.effective_batch * usual_s
        training_s = trainer.max_steps * usual_s if trainer.max_steps else trainer.epochs * epoch_s
        training_s = min(training_s, (trainer.stop_after or math.inf) * usual_s)
    everything, trained = counted(config, model, classes)
    memory = fit.memory
    learnt = memory.weights + memory.trained if isinstance(config.lora, FullFinetune) else memory.trained
    return TrialPlan(
        device,
        config.precision.storage.value,
        config.precision.compute.value,
        everything,
        trained,
        fit,
        None if fit.fits else cheapest_change(config, model, device),
        step.step,
        epoch_s,
        training_s,
        trainer.micro_batch,
        trainer.effective_batch,
        disk_bytes=CHECKPOINTS_AT_ONCE * (learnt + memory.optimizer + memory.paged) + learnt,
        estimated=offered_options.estimated(config),
        several=_on_several(config, model, device, step, classes),
    )


def _on_several(config: Config, model: Architecture, device: Device, step: Seconds, classes: int) -> OnSeveral | None:
    count, one = count_of(device), alone(device)
    if count == 1:
        return None
    one_s = seconds_of(config, model, one, tokens_per_row=float(config.data.max_length)).step
    one_fit = fit_of(config, model, one, classes=classes)
    return OnSeveral(count, share_of(config, model, device), step.exchange, link_of(device)[1], one_s, one_fit)
