"""Trials that cannot fit their device, found before any is started."""

from dataclasses import dataclass, replace
from math import ceil

from danube_sweep.data.size import longest_row
from danube_sweep.planner.device import count_gpus, planned_device
from danube_sweep.planner.fit import fit_of, largest_micro_batch, misfit
from danube_sweep.planner.model import planned_architecture
from danube_sweep.schema import Config, Sweep
from danube_sweep.trial import MICRO_BATCH, RunFolder, write_json


@dataclass(frozen=True)
class Misfit:
    """Why a trial does not fit, and the rows of a forward pass with which it would; None if not even one does."""

    reason: str
    rows: int | None


def misfit_of(config: Config, sweep: Sweep) -> Misfit | None:
    """The misfit of a trial in one of the sweep's slots; None if it fits or nobody knows. Raises ModelError."""
    device = planned_device(config.device)
    if device.memory_gib is None:
        return None
    sharing = ceil((sweep.slots or 1) / count_gpus()) if device.accelerator != "cpu" else sweep.slots or 1
    device = replace(device, memory_gib=device.memory_gib / sharing)
    model = planned_architecture(config.model)
    if fit_of(config, model, device).fits:
        return None
    # Rows may be much shorter than they are allowed to be; finding out costs reading them.
    config = replace(config, data=replace(config.data, max_length=longest_row(config.data)))
    if fit_of(config, model, device).fits:
        return None
    shared = f", shared by {sharing} slots," if sharing > 1 else ""
    return Misfit(misfit(config, model, device, shared), largest_micro_batch(config, model, device))


def shrink(folder: RunFolder, rows: int) -> None:
    """Gives a trial that was never tried smaller micro-batches. Raises DiskError."""
    if not folder.adjusted.is_file() and not folder.attempts.is_file():
        write_json(folder.adjusted, {MICRO_BATCH: rows})
