"""How long the packs of a sweep take together, prefix fill included, validation not counted. Asks no torch."""

import math
from collections.abc import Callable, Sequence

from danube_sweep.config.schema import Config
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.planner.pack_plan import LengthsOf, PlannedPack
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device, slots_share
from danube_sweep.planner.step_seconds import seconds_of

RowsOf = Callable[[Config], int | None]
"""The training rows of a trial; None if nobody knows."""


def steps_of(config: Config, rows: int | None) -> int | None:
    """The optimizer steps of a trial; None where they follow from rows that nobody knows."""
    trainer = config.trainer
    steps = trainer.max_steps
    if not steps and rows is not None:
        steps = math.ceil(trainer.epochs * math.ceil(rows / trainer.effective_batch))
    return min((one for one in (steps, trainer.stop_after) if one), default=None)


def sweep_seconds(
    configs: Sequence[Config], packs: Sequence[PlannedPack], *, rows: RowsOf, lengths: LengthsOf, slots: int | None
) -> float | None:
    """Seconds until all packs have ended, `slots` of them at a time; None if rows or an architecture are not known."""
    total = 0.0
    for pack in packs:
        steps = [steps_of(configs[place], rows(configs[place])) for place in pack.trials]
        known = [one for one in steps if one is not None]
        try:
            step_s = pack.step_s or _alone_s(configs[pack.trials[0]], lengths, slots)
        except UnknownArchitecture:
            return None
        if len(known) < len(steps):
            return None
        total += step_s * sum(known) / len(known)
    return total / max(1, min(slots or 1, len(packs)))


def _alone_s(config: Config, lengths: LengthsOf, slots: int | None) -> float:
    model, device = planned_architecture(config.model), slots_share(planned_device(config.device), slots)
    return seconds_of(config, model, device, tokens_per_row=lengths(config).mean).step
