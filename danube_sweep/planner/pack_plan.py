"""Which trials train together over one backbone: the fields that must be equal, and the size by memory and gain."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from danube_sweep.config.facts.adapters import shares_backbone
from danube_sweep.config.facts.architectures import Architecture, family_of, first_adapted
from danube_sweep.config.schema import Config, Device, FullFinetune, Lora
from danube_sweep.config.validate import AUTO
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.planner.joint_pass import batches_key, distinct_batches
from danube_sweep.planner.memory import GIB, Memory, pack_memory
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import capacity_bytes, planned_device, slots_share
from danube_sweep.planner.step_seconds import pack_seconds
from danube_sweep.planner.what_fits import TIGHT, fit_on

MOST: Final = 16
"""The largest pack. A seventeenth trial gains less than a process that dies with all of them costs."""
LEAST_GAIN: Final = 1.1
"""A smaller gain is within the error of the prediction: such trials train one after another."""
NEARLY_BEST: Final = 1.02
"""Of two sizes with which all trials take nearly the same time the smaller is taken."""
WINDOW: Final = 4 * MOST
"""Open trials among which a plan looks for those that suit the next one."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training rows: of the longest, and of the mean one with its padding."""

    longest: int
    mean: float


LengthsOf = Callable[[Config], Lengths]


def full_rows(config: Config) -> Lengths:
    """The lengths for unknown data: every row has the largest length."""
    return Lengths(config.data.max_length, float(config.data.max_length))


@dataclass(frozen=True)
class PlannedPack:
    """Trials that are to train together, by their places in the list that was given, smallest rank first."""

    trials: tuple[int, ...]
    why: str
    """A sentence for the user."""
    memory: Memory | None = None
    """None where the architecture is not known."""
    step_s: float | None = None
    """Predicted seconds of a step of every trial, corrected by measurements."""
    gain: float = 1.0
    """Predicted seconds of the trials one after another, over those of the pack."""


def pack_key(config: Config) -> str | None:
    """Trials with equal keys may train in one pack; None trains alone."""
    if not shares_backbone(config.lora, config.model.shape.model_type):
        return None
    data, trainer = config.data, config.trainer
    blocks = config.model.shape.num_hidden_layers
    equal = (
        config.model,
        config.precision,
        config.device,
        (data.max_length, data.batching, data.layout, data.cache_prefix),
        first_adapted(config.lora, blocks) if data.cache_prefix else None,  # one file each
        (config.head.passes, config.head.reads_lm_head),
        (trainer.micro_batch, trainer.eval_batch),
        *([(trainer.benchmark, trainer.benchmark_limit, trainer.benchmark_dir)] if trainer.benchmark else []),
    )
    return hashlib.sha256(repr(equal).encode()).hexdigest()[:16]


@final
class Corrections:
    """Measured step times, by pack key, which correct later predictions of seconds and gain."""

    def __init__(self) -> None:
        self._ratios: dict[str, dict[int, float]] = {}

    def observe(self, key: str, trials: int, *, predicted_s: float, measured_s: float) -> None:
        """Seconds of a step of a pack of so many trials: as `pack_seconds` predicts it, and as it was."""
        if predicted_s > 0 and measured_s > 0:
            self._ratios.setdefault(key, {})[trials] = measured_s / predicted_s

    def observed(self, key: str | None) -> bool:
        """Whether any step with this key was measured."""
        return bool(self._ratios.get(key or ""))

    def ratio(self, key: str | None, trials: int) -> float:
        """Measured over predicted seconds: on a line between the sizes observed, else the nearest one's; 1 for none."""
        observed = sorted(self._ratios.get(key or "", {}).items())
        if not observed:
            return 1.0
        below = [one for one in observed if one[0] <= trials]
        above = [one for one in observed if one[0] >= trials]
        (fewer, lower), (more, upper) = (below or above[:1])[-1], (above or below[-1:])[0]
        share = (trials - fewer) / (more - fewer) if more > fewer else 0.0
        return lower + share * (upper - lower)


def plan_packs(
    configs: Sequence[Config],
    *,
    pack: str | int = AUTO,
    slots: int | None = None,
    lengths: LengthsOf = full_rows,
    corrections: Corrections | None = None,
) -> list[PlannedPack]:
    """The packs in which trials would run, greedily in their order: every trial is in one.

    `pack` is sweep.pack, `slots` trials or packs at a time share the device. Raises ModelError for a local model folder
    that cannot be read.
    """
    keys = [pack_key(config) for config in configs]
    left, packs = list(range(len(configs))), []
    while left:
        key = keys[left[0]]
        mates = [number for number in left if keys[number] == key][:WINDOW] if key else left[:1]
        chosen = choose_pack(
            [configs[number] for number in mates],
            pack=pack,
            slots=slots,
            most=fair_share(keys.count(key), slots) if keys.count(key) > 1 else None,
            lengths=lengths,
            corrections=corrections,
        )
        packs.append(replace(chosen, trials=tuple(mates[number] for number in chosen.trials)))
        gone = set(packs[-1].trials)
        left = [number for number in left if number not in gone]
    return packs


def fair_share(trials: int, slots: int | None) -> int:
    """The most trials of a pack, of so many with its key, that leave none of so many free slots without any."""
    return max(1, math.ceil(trials / (slots or 1)))


def choose_pack(
    configs: Sequence[Config],
    *,
    pack: str | int = AUTO,
    slots: int | None = None,
    most: int | None = None,
    lengths: LengthsOf = full_rows,
    corrections: Corrections | None = None,
) -> PlannedPack:
    """The pack of the first config with those of the others that join it, at most `most` in all (all of them).

    With `auto` a pack has the size with which all these trials end soonest, of those whose memory fits; with 8 up to
    eight join that fit, whatever the gain. Raises ModelError for a local model folder that cannot be read.
    """
    first = configs[0]
    mates = _mates(configs)
    share = min(most or len(mates), len(mates))
    limit = min(MOST if pack == AUTO else int(pack), share)
    if limit == 1:
        return PlannedPack((0,), f"alone: {_why_alone(first, pack, most)}")
    try:
        model = planned_architecture(first.model)
    except UnknownArchitecture as error:
        if pack == AUTO:
            return PlannedPack((0,), f"alone: {error}")
        return PlannedPack(tuple(mates[:limit]), f"{limit} trials, as sweep.pack={pack} asks: {error}")
    device = slots_share(planned_device(first.device), slots)
    chooser = _Chooser(configs, model, device, lengths, corrections or Corrections())
    return chooser.forced(mates, limit, int(pack)) if pack != AUTO else chooser.best(mates, limit, share)


def joins(
    running: Sequence[Config],
    waiting: Sequence[Config],
    *,
    pack: str | int = AUTO,
    slots: int | None = None,
    lengths: LengthsOf = full_rows,
    corrections: Corrections | None = None,
) -> int | None:
    """Which of the waiting trials takes a place that is free in a running pack; None if none may or none fits.

    The first that reads the batches which the others read, over the same frozen blocks, with a rank near theirs. With
    `auto` it must not cost the others more than it gains: one that adapts lower blocks has them all run those, one that
    reads other batches has them padded to its rows.
    """
    key = pack_key(running[0])
    alike = [number for number in range(len(waiting)) if key is not None and pack_key(waiting[number]) == key]
    kinds = {number: _kind(waiting[number]) for number in alike}
    refused = set()
    for number in sorted(alike, key=lambda number: _distance(waiting[number], running[0])):
        with_it = [waiting[other] for other in alike if kinds[other] == kinds[number]]
        chosen = kinds[number], getattr(waiting[number].lora, "rank", 0)
        if chosen not in refused and _welcome(
            running, waiting[number], with_it[:MOST], pack, slots, lengths, corrections
        ):
            return number
        refused.add(chosen)
    return None


def _welcome(
    running: Sequence[Config],
    newcomer: Config,
    with_it: Sequence[Config],
    pack: str | int,
    slots: int | None,
    lengths: LengthsOf,
    corrections: Corrections | None,
) -> bool:
    # Whether there is room, and it gains more than it would later, in a pack of those that are `with_it`.
    try:
        model = planned_architecture(newcomer.model)
    except UnknownArchitecture:
        return True
    known = slots_share(planned_device(newcomer.device), slots), lengths, corrections or Corrections()
    together, everyone = _Chooser([*running, newcomer], model, *known), range(len(running) + 1)
    if not together.fits(everyone):
        return False
    if pack != AUTO:
        return True
    later, size = _Chooser(with_it, model, *known), len(with_it)
    while size > 1 and not later.fits(range(size)):
        size -= 1
    later_s = together.seconds(everyone[:-1]) + later.seconds(range(size)) / size
    return together.seconds(everyone) <= NEARLY_BEST * later_s


def _mates(configs: Sequence[Config]) -> list[int]:
    # The first and those with its key: trials that share its batches and frozen blocks, and have a near rank, come
    # first, else in their order.
    first, key = configs[0], pack_key(configs[0])
    others = [number for number in range(1, len(configs)) if key is not None and pack_key(configs[number]) == key]
    return [0, *sorted(others, key=lambda number: _distance(configs[number], first))]


def _kind(config: Config) -> tuple[str, int]:
    # Trials of a pack share their batches, and the blocks below the first adapted one.
    return batches_key(config), first_adapted(config.lora, config.model.shape.num_hidden_layers)


def _distance(config: Config, first: Config) -> tuple[bool, int, float]:
    (batches, frozen), (others, frozen_there) = _kind(config), _kind(first)
    ranks = [one.lora.rank if isinstance(one.lora, Lora) else 1 for one in (config, first)]
    return batches != others, abs(frozen - frozen_there), math.floor(abs(math.log2(ranks[0] / ranks[1])))


def _why_alone(config: Config, pack: str | int, most: int | None) -> str:
    if pack != AUTO and int(pack) == 1:
        return "sweep.pack=1"
    if isinstance(config.lora, FullFinetune):
        return "lora=full trains the backbone itself"
    if family_of(config.model.shape.model_type).encoder:
        return "an encoder's own dropout is drawn for the whole batch"
    if pack_key(config) is None:
        name = type(config.lora).__name__.lower()
        biased = "with its biases " if type(config.lora) is Lora else ""
        return f"{name} {biased}trains over PEFT's own layers"
    if most == 1:
        return "every slot has its own trial"
    return "no other open trial has the same model, precision and rows"


def _seconds_of_all(trials: int, most: int, gains: dict[int, float]) -> float:
    # Of trials that take a second each alone, in packs of at most `most`, as even as can be.
    packs = math.ceil(trials / most)
    smaller, larger = trials // packs, trials % packs
    return (packs - larger) * smaller / gains[smaller] + (larger and larger * (smaller + 1) / gains[smaller + 1])


@final
class _Chooser:
    # Predicts packs of the configs; a pack is given by its trials' places in the list.

    def __init__(
        self,
        configs: Sequence[Config],
        model: Architecture,
        device: Device,
        lengths: LengthsOf,
        corrections: Corrections,
    ) -> None:
        self._configs = [replace(config, device=device) for config in configs]
        self._model, self._device, self._capacity = model, device, capacity_bytes(device)
        self._lengths, self._corrections, self._key = lengths, corrections, pack_key(configs[0])
        self._alone: dict[int, float] = {}

    def best(self, mates: list[int], limit: int, share: int) -> PlannedPack:
        packs = self._sizes(mates, limit)
        if not packs:
            return self._too_large(mates)
        largest = max(packs, key=lambda pack: pack.gain)
        guessed = self._device.guessed and not self._corrections.observed(self._key)
        if largest.gain < LEAST_GAIN and guessed:
            size = len(packs[-1].trials)
            why = (
                f"{size} trials by memory, for the rates of {self._device.name} are a guess: {self._numbers(packs[-1])}"
            )
            return replace(packs[-1], why=why)
        if largest.gain < LEAST_GAIN:
            gain = f"{len(largest.trials)} together are predicted {largest.gain:.2f}x, under {LEAST_GAIN}x"
            return PlannedPack((0,), f"alone: {gain}")
        gains = {1: 1.0, **{len(pack.trials): pack.gain for pack in packs}}
        taken = {size: _seconds_of_all(share, size, gains) for size in gains if size > 1}
        size = next(size for size, all_s in taken.items() if all_s <= NEARLY_BEST * min(taken.values()))
        pack = packs[size - 2]
        return replace(pack, why=f"{size} trials: {self._numbers(pack)}")

    def forced(self, mates: list[int], limit: int, asked: int) -> PlannedPack:
        packs = self._sizes(mates, limit)
        if not packs:
            return self._too_large(mates)
        pack, size = packs[-1], len(packs[-1].trials)
        cut = f"; {size + 1} would not fit" if size < limit else ""
        return replace(pack, why=f"{size} trials, as sweep.pack={asked} asks: {self._numbers(pack)}{cut}")

    def fits(self, trials: Sequence[int]) -> bool:
        return self._capacity is None or self._memory(trials).total <= self._capacity

    def seconds(self, trials: Sequence[int]) -> float:
        """Of a micro-batch of every one of them, together."""
        return self._seconds(trials)[1]

    def _sizes(self, mates: list[int], limit: int) -> list[PlannedPack]:
        # The packs of two and more that fit.
        packs: list[PlannedPack] = []
        for size in range(2, limit + 1):
            if not self.fits(mates[:size]):
                break
            packs.append(self._pack(mates[:size]))
        return packs

    def _pack(self, trials: list[int]) -> PlannedPack:
        step_s, micro_batch_s = self._seconds(trials)
        gain = sum(self._alone_s(number) for number in trials) / micro_batch_s
        ranked = sorted(trials, key=lambda number: getattr(self._configs[number].lora, "rank", 0))
        return PlannedPack(tuple(ranked), "", self._memory(trials), step_s, gain)

    def _alone_s(self, number: int) -> float:
        if number not in self._alone:
            self._alone[number] = self._seconds([number])[1]
        return self._alone[number]

    def _seconds(self, trials: Sequence[int]) -> tuple[float, float]:
        configs = [self._configs[number] for number in trials]
        mean = max(self._lengths(config).mean for config in configs)
        seconds = pack_seconds(configs, self._model, self._device, tokens_per_row=mean)
        ratio = self._corrections.ratio(self._key, len(trials))
        return ratio * seconds.step, ratio * seconds.micro_batch

    def _memory(self, trials: Sequence[int]) -> Memory:
        configs = [self._configs[number] for number in trials]
        longest = max(self._lengths(config).longest for config in configs)
        return pack_memory(configs, self._model, longest=longest)

    def _too_large(self, mates: list[int]) -> PlannedPack:
        assert self._capacity is not None
        needs, has = self._memory(mates[:2]).total / GIB, self._capacity / GIB
        return PlannedPack((0,), f"alone: two would need {needs:.1f} of {has:.1f} GiB")

    def _numbers(self, pack: PlannedPack) -> str:
        assert pack.memory is not None
        has = "" if self._capacity is None else f" of {self._capacity / GIB:.1f}"
        fit = fit_on(pack.memory, self._device)
        tight = ", which is tight" if fit.verdict == TIGHT else ""
        trials = [self._configs[number] for number in pack.trials]
        orders = distinct_batches(trials)
        read = f", rows in {orders} orders" if orders > 1 else ""
        kept = ", states kept per row" if orders > 1 and trials[0].data.cache_prefix else ""
        return f"{pack.gain:.1f}x by prediction, {pack.memory.total / GIB:.1f}{has} GiB{tight}{read}{kept}"
