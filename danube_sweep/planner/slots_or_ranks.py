"""device.count=auto: whether GPUs train a trial each (slots) or trials together (ranks), by predicted time and memory.

Asks no torch.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from danube_sweep.config.schema import Config, Device
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.pack_plan import NEARLY_BEST, LengthsOf, PlannedPack, plan_packs
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.present_gpu import count_gpus
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.sweep_seconds import RowsOf, steps_of
from danube_sweep.planner.what_fits import Fit, fit_of

LEAST_GAIN: Final = 1.1
"""Less is within the error of the prediction: then slots, which exchange nothing."""
LOOKED_AT: Final = 64
"""Trials that are looked at, of those that need different memory."""
ROUNDS: Final = 8
"""With more trials for each GPU than this, how they end changes less than a tenth of the time."""


@dataclass(frozen=True)
class CountChoice:
    """How many GPUs train each trial or pack, and the reason; none where there is nothing to choose."""

    count: int
    why: str | None
    last: int = 0
    """Trials at the end of a sweep that train one after the other, when the slots have trained the others."""
    last_count: int = 1
    """How many GPUs train each of those together."""


@dataclass(frozen=True)
class Ways:
    """What the choice is between: GPUs, and how trials are packed and counted on them."""

    gpus: int
    rows: RowsOf
    lengths: LengthsOf
    pack: str | int = 1
    slots: int | None = None
    """sweep.slots: no more GPUs than these slots can have train a trial."""
    may_leave: bool = False
    """Whether the last trials of a sweep may train differently than the first ones."""

    @property
    def counts(self) -> list[int]:
        """The numbers of GPUs that may train a trial together, without 1."""
        most = self.gpus // (self.slots or 1)
        return sorted({most, *(2**power for power in range(1, most.bit_length()) if 2**power <= most)} - {0, 1})


def gpus_of(device: Device) -> int:
    """The GPUs that device.count=auto chooses among, for a plan; 1 on a CPU."""
    known = planned_device(device)
    return 1 if known.accelerator != "cuda" else device.gpus or count_gpus()


def least_count(config: Config, ways: Ways) -> int | None:
    """The fewest GPUs that a trial with device.count=auto fits, one or several together; None if it fits on none."""
    return next((count for count in (1, *ways.counts) if _fit(config, count, ways).fits), None)


def choose_count(configs: Sequence[Config], ways: Ways) -> CountChoice:
    """How these trials, all that are open, are best trained.

    Several GPUs train each trial together where a trial does not fit one, or where all trials then end sooner by a
    tenth. Raises ModelError for a local model folder that cannot be read.
    """
    if not ways.counts or not configs:
        return CountChoice(1, None)
    try:
        return _by_memory(configs, ways) or _by_time(configs, ways)
    except UnknownArchitecture as error:
        return CountChoice(1, f"one GPU for each trial: {error}")


def _by_memory(configs: Sequence[Config], ways: Ways) -> CountChoice | None:
    # The fewest GPUs that each trial fits, if that is more than one; None also where no number helps.
    shapes = Counter(map(_needed_by, configs))
    one_each = {_needed_by(config): config for config in reversed(configs)}
    looked_at = sorted(one_each.items(), key=lambda one: -one[1].data.max_length)[:LOOKED_AT]
    found = {key: config for key, config in looked_at if not _fit(config, 1, ways).fits}
    large = list(found.values())
    for count in ways.counts if large else []:
        if all(_fit(config, count, ways).fits for config in large):
            one, several = (max((_fit(config, each, ways) for config in large), key=_needs) for each in (1, count))
            has = 0.0 if one.capacity_bytes is None else one.capacity_bytes / GIB
            who = "it" if len(configs) == 1 else f"{sum(shapes[key] for key in found)} of {len(configs)} trials"
            trains = "it" if len(configs) == 1 else "each trial"
            return CountChoice(
                count,
                f"{count} GPUs train {trains} together: {who} would need {_needs(one) / GIB:.1f} of {has:.1f} GiB on "
                f"one, and {count} need {_needs(several) / GIB:.1f} each",
            )
    return None


def _needed_by(config: Config) -> str:
    # What decides a trial's memory, and some more; not its seed or rates.
    groups = config.precision, config.lora, config.head, config.device, replace(config.model, lr=0.0)
    optimizer, trainer, data = type(config.optimizer).__name__, config.trainer, config.data
    return repr((groups, optimizer, trainer.micro_batch, trainer.effective_batch, data.max_length, data.layout))


def _by_time(configs: Sequence[Config], ways: Ways) -> CountChoice:
    if len(configs) > ROUNDS * ways.gpus:
        return CountChoice(1, f"a GPU for each trial, as there are more than {ROUNDS * ways.gpus} for {ways.gpus} GPUs")
    slots = ways.slots or ways.gpus
    alone = _seconds(configs, ways, 1, slots)
    slots_s = _end(alone, slots)
    together = {count: _seconds(configs, ways, count, ways.slots or ways.gpus // count) for count in ways.counts}
    all_s = {count: _end(one, ways.slots or ways.gpus // count) for count, one in together.items()}
    count = min(all_s, key=lambda one: (all_s[one], one))
    gain = slots_s / all_s[count]
    left = _last_together(alone, together, slots) if ways.may_leave and len(alone) == len(configs) else None
    if left is not None and left[1] <= NEARLY_BEST * all_s[count]:
        last, mixed_s, last_count = left
        which = "the last trial" if last == 1 else f"the last {last} trials, one after the other"
        why = (
            f"a GPU for each trial, and {last_count} together for {which}: predicted {slots_s / mixed_s:.2f} times as "
        )
        return CountChoice(1, f"{why}fast as a GPU for each to the end", last, last_count)
    if len(configs) == 1:
        if gain >= LEAST_GAIN:
            return CountChoice(count, f"{count} GPUs train it together: predicted {gain:.2f} times as fast as one")
        return CountChoice(1, f"one GPU trains it: {count} together are predicted only {gain:.2f} times as fast")
    if gain >= LEAST_GAIN:
        why = f"{count} GPUs train each trial together: predicted {gain:.2f} times as fast as a GPU for each"
        return CountChoice(count, why)
    return CountChoice(1, f"a GPU for each trial: {count} together for each are predicted {gain:.2f} times as fast")


def _last_together(
    alone: Sequence[float], together: Mapping[int, list[float]], slots: int
) -> tuple[int, float, int] | None:
    # The trials of a last round that leaves slots empty, the seconds of all if those train together, and on how many
    # GPUs; None if that is hardly faster, or some trials would train in packs.
    count, last = max(together), len(alone) % slots
    if len(alone) <= slots or not last or len(together[count]) != len(alone):
        return None
    mixed_s = _end(alone[:-last], slots) + sum(together[count][-last:])
    return (last, mixed_s, count) if _end(alone, slots) / mixed_s >= LEAST_GAIN else None


def _fit(config: Config, count: int, ways: Ways) -> Fit:
    device = replace(planned_device(config.device), count=count)
    return fit_of(config, planned_architecture(config.model), device, longest=ways.lengths(config).longest)


def _needs(fit: Fit) -> float:
    return fit.memory.total


def _seconds(configs: Sequence[Config], ways: Ways, count: int, slots: int) -> list[float]:
    # Of each pack in turn, trained by so many GPUs; steps that nobody knows are as many as those of the others.
    placed = [replace(config, device=replace(config.device, count=count, gpus=ways.gpus)) for config in configs]
    packs = plan_packs(placed, pack=ways.pack, slots=slots, lengths=ways.lengths)
    steps = [steps_of(config, ways.rows(config)) for config in configs]
    known = [one for one in steps if one is not None]
    usual = sum(known) / len(known) if known else 1.0

    def seconds(pack: PlannedPack) -> float:
        step_s = pack.step_s
        if step_s is None:
            config = placed[pack.trials[0]]
            model, device = planned_architecture(config.model), planned_device(config.device)
            step_s = seconds_of(config, model, device, tokens_per_row=ways.lengths(config).mean).step
        counted = [usual if steps[place] is None else float(steps[place] or 0) for place in pack.trials]
        return step_s * sum(counted) / len(counted)

    return [seconds(pack) for pack in packs]


def _end(seconds: Sequence[float], slots: int) -> float:
    # When the last of some packs ends that start in turn, each in the slot that is free first.
    free = [0.0] * max(1, slots)
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)
