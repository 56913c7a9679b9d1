"""device.count=auto, settled where trials are about to train: by the GPUs here, and for a sweep by its open trials."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from danube_sweep.config.schema import Config, Device, Sweep
from danube_sweep.config.validate import AUTO
from danube_sweep.errors import UserError
from danube_sweep.planner.slots_or_ranks import LOOKED_AT, ROUNDS, CountChoice, Ways, choose_count
from danube_sweep.sweeping.execute.slots import Slots, find_slots, ranks_for, visible_gpus
from danube_sweep.sweeping.propose.fits_device import lengths_of_rows, rows_of
from danube_sweep.sweeping.propose.next_trial import Source
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.probe import probe_once


@dataclass(frozen=True)
class SweepSlots:
    """The slots of a sweep. With `last` trials left they end, and those train one after the other in `together`."""

    slots: Slots
    last: int = 0
    together: Slots | None = None


def ranks_of(config: Config) -> tuple[dict[str, str], ...]:
    """`ranks_for` of a single trial's device; with device.count=auto it chooses their number, and prints why."""
    device = config.device
    if device.count == AUTO:
        device = replace(device, count=_chosen([config], {device.accelerator}, Terminal(), pack=1, slots=1).count)
    return ranks_for(device)


def slots_of(
    sweep: Sweep,
    accelerators: set[str],
    count: int | str,
    source: Source,
    drawn: Config | None,
    terminal: Terminal,
    *,
    may_leave: bool,
) -> SweepSlots:
    """`find_slots` for a sweep, whose GPU is probed first; with device.count=auto, `count`, it chooses by the open
    trials, and prints why.

    `drawn` is a trial of a search, whose other trials count as if they were like it. `may_leave`: whether the last
    trials may train on other slots than the first ones. Raises ConfigError as `find_slots` does.
    """
    slots = find_slots(sweep, accelerators, 1 if count == AUTO else count)
    if not slots.on_cpu:
        probe_once(Device(), terminal.note, slots.environment(0))
    if count != AUTO:
        return SweepSlots(slots)
    most = max(LOOKED_AT, ROUNDS * len(visible_gpus(accelerators)) + 1)  # from there on, more change nothing
    configs = source.waiting(lambda _config: True, most)
    if drawn is not None:
        configs += [drawn] * min(source.drawable(), most)
    chosen = _chosen(configs, accelerators, terminal, pack=sweep.pack, slots=sweep.slots, may_leave=may_leave)
    slots = find_slots(sweep, accelerators, chosen.count)
    if not chosen.last:
        return SweepSlots(slots)
    return SweepSlots(slots, chosen.last, find_slots(replace(sweep, slots=1), accelerators, chosen.last_count))


def _chosen(configs: Sequence[Config], accelerators: set[str], terminal: Terminal, **ways: Any) -> CountChoice:
    gpus = len(visible_gpus(accelerators))
    if gpus < 2:  # nothing to choose, and nothing to say
        return CountChoice(1, None)
    chosen = CountChoice(1, None)
    with suppress(UserError, OSError):  # a model or data that is missing: the trial's own run reports it
        chosen = choose_count(configs, Ways(gpus, rows_of, lengths_of_rows(), **ways))
    if chosen.why is not None:
        terminal.note(f"device.count=auto: {chosen.why}")
    return chosen
