"""Which trials start together, and who takes a place that has come free."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import eq
from typing import Any, Final, final

from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.validate import AUTO
from danube_sweep.errors import CheckpointError, UserError
from danube_sweep.planner.pack_plan import WINDOW, Corrections, choose_pack, joins, pack_key
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import pack_seconds
from danube_sweep.storage.run_folder import number_at
from danube_sweep.sweeping.propose.fits_device import lengths_of_rows
from danube_sweep.sweeping.propose.next_trial import Claim, Source, Wanted

DRAWS: Final = 4
"""Draws of a search that may belong to other packs before a place stays free."""

Claiming = Callable[[Wanted, int], Claim | None]
"""`Source.claim`."""


@final
class Packer:
    """Forms packs from sweep.pack, the planner's predictions and the outcomes so far."""

    def __init__(self, settings: Sweep, source: Source, claim: Claiming) -> None:
        self._pack, self._slots, self._source, self._claim = settings.pack, settings.slots, source, claim
        self._lengths, self._corrections = lengths_of_rows(), Corrections()
        self._most: dict[str, int] = {}
        """Key -> the largest pack, where a larger one has died."""
        self._keys: dict[int, tuple[Config, str | None]] = {}
        """By the identity of a config, which it keeps: a key takes longer than a look at it."""
        self._before: dict[str, int | None] = {}
        """Key -> the largest pack before a death that a single trial may have caused."""

    def key(self, claim: Claim) -> str | None:
        """Trials with the same key may train together; None trains alone."""
        with suppress(CheckpointError):
            return None if self._pack == 1 else self._key(claim.trained)
        return None

    def _key(self, config: Config) -> str | None:
        if id(config) not in self._keys:
            self._keys[id(config)] = config, pack_key(config)
        return self._keys[id(config)][1]

    def gathered(self, first: Claim, key: str, share: int | None) -> list[Claim]:
        """The claimed trial and those that start together with it, claimed as well.

        `share`: the slot's share of the waiting trials, an upper limit for a pack whose size is chosen here.
        """
        claims, (mates, draws) = [first], self._chosen(first, key, share)
        for mate in mates:
            if (claim := self._claim(partial(eq, mate), 0)) is not None:
                claims.append(claim)
        for _ in range(draws):
            if (claim := self._claim(self._joining(key, claims), DRAWS)) is None:
                break
            claims.append(claim)
        return claims

    def newcomer(self, key: str, present: Sequence[Claim], places: int) -> Claim | None:
        """A claimed trial for a free place beside those present; None if none is free, or none fits."""
        if len(present) >= self._capped(key, places):
            return None
        running, waiting = [claim.trained for claim in present], self._same(key)
        with suppress(UserError, OSError):
            while waiting:
                chosen = self._joins(running, waiting) if running else 0
                if chosen is None:
                    break
                if (claim := self._claim(partial(eq, waiting.pop(chosen)), 0)) is not None:
                    return claim
        return self._claim(self._joining(key, present), DRAWS) if self._source.drawable() else None

    def _chosen(self, first: Claim, key: str, share: int | None) -> tuple[list[Config], int]:
        """The known trials that should start together with `first`, and how many are to be drawn for it."""
        most = self._most.get(key)
        if self._pack == AUTO and share is not None:
            most = share if most is None else min(most, share)
        if most == 1:
            return [], 0
        known = self._same(key)
        candidates = [first.trained, *known]
        candidates += [first.trained] * min(self._source.drawable(), WINDOW)  # draws are assumed to be like it
        try:
            pack = choose_pack(
                candidates,
                pack=self._pack,
                slots=self._slots,
                most=most,
                lengths=self._lengths,
                corrections=self._corrections,
            )
        except (UserError, OSError):  # the model or the data are missing, which the trial's own run reports
            return [], 0
        others = [number for number in pack.trials if number > 0]
        mates = [candidates[number] for number in others if number <= len(known)]
        return mates, len(others) - len(mates)

    def _same(self, key: str) -> list[Config]:
        return self._source.waiting(lambda config: self._key(config) == key, WINDOW)

    def _joining(self, key: str, present: Sequence[Claim]) -> Wanted:
        running = [claim.trained for claim in present]

        def wanted(config: Config) -> bool:
            if not running:
                return self._key(config) == key
            return self._joins(running, [config]) is not None

        return wanted

    def _joins(self, running: Sequence[Config], waiting: Sequence[Config]) -> int | None:
        return joins(
            running,
            waiting,
            pack=self._pack,
            slots=self._slots,
            lengths=self._lengths,
            corrections=self._corrections,
        )

    # -------------------------------------------------------------------------------------------- outcomes

    def _capped(self, key: str, size: int) -> int:
        return min(size, self._most.get(key, size))

    def died(self, key: str, fewer: int) -> None:
        """A pack was too large, or one of its trials has ended it: from here on `fewer`, or as many as survive."""
        self._before.setdefault(key, self._most.get(key))
        self._most[key] = self._capped(key, max(1, fewer))

    def survived(self, key: str, size: int) -> None:
        """A pack of `size` came to its end."""
        if key in self._most:
            self._most[key] = max(self._most[key], size)

    def explained(self, key: str) -> None:
        """The trial that its pack died of was found alone: the size was not to blame."""
        before = self._before.pop(key, None)
        if before is None:
            self._most.pop(key, None)
        else:
            self._most[key] = before

    def learn(self, claim: Claim, present: Sequence[Claim], result: dict[str, Any]) -> None:
        """Corrects predictions by the result of a trial that left while those were present, itself included."""
        measured_s = number_at(result, "measured/seconds_per_step")
        if measured_s is None or number_at(result, "measured/packed") != len(present):  # there were more, for a while
            return
        with suppress(UserError, OSError):
            configs, trainer = [one.trained for one in present], claim.trained.trainer
            model, device = planned_architecture(configs[0].model), planned_device(configs[0].device)
            mean = self._lengths(configs[0]).mean
            predicted = pack_seconds(configs, model, device, tokens_per_row=mean)
            all_batches = sum(one.trainer.effective_batch / one.trainer.micro_batch for one in configs) / len(configs)
            on_each = predicted.micro_batches / all_batches  # of the micro-batches, with device.count
            micro_batch_s = measured_s * trainer.micro_batch / trainer.effective_batch / on_each
            if (key := self._key(configs[0])) is not None:
                measured_s = micro_batch_s * len(configs)
                self._corrections.observe(key, len(configs), predicted_s=predicted.micro_batch, measured_s=measured_s)
