"""Trials that cannot fit their device, found before any is started, and how long their rows are."""

from dataclasses import dataclass, replace

from danube_sweep.config.schema import Config, OnMisfit, Sweep
from danube_sweep.config.schema.states import MICRO_BATCH
from danube_sweep.config.validate import AUTO
from danube_sweep.data.size import data_size, longest_row
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.planner.pack_plan import Lengths, LengthsOf
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device, slots_share
from danube_sweep.planner.slots_or_ranks import Ways, gpus_of, least_count
from danube_sweep.planner.what_fits import fit_of, largest_micro_batch, misfit
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Misfit:
    """Why a trial does not fit, and the rows of a forward pass with which it would; None if not even one does."""

    reason: str
    rows: int | None


def misfit_of(config: Config, sweep: Sweep) -> Misfit | None:
    """The misfit of a trial in one of the sweep's slots; None if it fits or nobody knows. Raises ModelError."""
    device = slots_share(planned_device(config.device), sweep.slots)
    if device.memory_gib is None:
        return None
    try:
        model = planned_architecture(config.model)
    except UnknownArchitecture:
        return None
    if fit_of(config, model, device).fits:
        return None
    if config.device.count == AUTO and least_count(config, ways_of(config, sweep)) is not None:
        return None
    # Rows may be much shorter than they are allowed to be; finding out costs reading them.
    config = replace(config, data=replace(config.data, max_length=longest_row(config.data)))
    if fit_of(config, model, device).fits:
        return None
    return Misfit(misfit(config, model, device), largest_micro_batch(config, model, device))


def shrunk_rows(config: Config, sweep: Sweep) -> int | None:
    """The micro-batch that a sweep with on_misfit=shrink gives a trial that does not fit; None for any other."""
    found = misfit_of(config, sweep) if sweep.on_misfit is OnMisfit.shrink else None
    return None if found is None else found.rows


def shrink(folder: RunFolder, rows: int) -> bool:
    """Gives a trial that was never tried smaller micro-batches; whether it did. Raises DiskError."""
    if folder.adjusted.is_file() or folder.attempts.is_file():
        return False
    write_json(folder.adjusted, {MICRO_BATCH: rows})
    return True


def ways_of(config: Config, sweep: Sweep, lengths: LengthsOf | None = None, *, may_leave: bool = False) -> Ways:
    """What device.count=auto chooses between, on the device of a trial, for a plan; `lengths` are the data's."""
    gpus = gpus_of(config.device)
    return Ways(gpus, rows_of, lengths or lengths_of_rows(), sweep.pack, sweep.slots, may_leave=may_leave)


def rows_of(config: Config) -> int | None:
    """The training rows of a trial, as an estimate; None if nobody knows."""
    size = data_size(config.data)
    return None if size is None else size.rows


def lengths_of_rows() -> LengthsOf:
    """The lengths of a trial's rows, as an estimate; each data set is looked at once."""
    known: dict[str, Lengths] = {}

    def lengths(config: Config) -> Lengths:
        key = repr(config.data)
        if key not in known:
            longest, size = longest_row(config.data), data_size(config.data)
            known[key] = Lengths(longest, float(longest) if size is None else min(size.tokens_per_row, longest))
        return known[key]

    return lengths
