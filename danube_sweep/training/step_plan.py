"""Which rows a trial reads at which step: a function of the step alone, so that any step can be resumed."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch

from danube_sweep.config.facts.adapters import draws_by_row
from danube_sweep.config.facts.architectures import family_of
from danube_sweep.config.schema import Batching, Config
from danube_sweep.data.batches import Batch, Rows, collate, epoch_steps, forward_tokens
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import ConfigError
from danube_sweep.model.backbone import architecture
from danube_sweep.training.ranks import ALONE, Ranks

RECENT = 64
"""Batches that a pack keeps at hand; its trials ask for the same one within a step, or a few steps apart."""


@dataclass(frozen=True)
class PartOf:
    """The micro-batch that several ranks share, and where this rank's rows begin in it."""

    whole: Batch
    first: int


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass of one trial on one rank."""

    batch: Batch
    step: int
    index: int
    share: float
    """Its weight in the gradient: the weight of its rows over that of an average full step."""
    of_step: float
    """Its part of the step's own weight; a step's parts sum to 1 over all ranks."""
    last: bool
    """Whether it is this rank's last one of the step."""
    tokens: int
    """At the last one, the tokens of the whole step; before it 0."""
    part: PartOf | None = None
    """If its rows are one rank's part of a micro-batch: the draws for all rows, of which these rows take theirs."""


@final
class Collator:
    """Rows as tensors on a device. Trials that ask for the same rows get the same object, which tells the pack so."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recent: OrderedDict[tuple[int, int, bytes], tuple[Encoded, Batch]] = OrderedDict()

    def __call__(self, encoded: Encoded, rows: Rows, pad_id: int) -> Batch:
        """The batch of these rows. Equal data must be one object, since parts are compared by identity."""
        key = (id(encoded), pad_id, rows.tobytes())
        if key not in self._recent:
            self._recent[key] = encoded, collate(encoded, rows, pad_id).to(self._device)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return self._recent[key][1]


@final
class StepPlan:
    """The optimizer steps of a trial over its encoded training rows."""

    def __init__(self, config: Config, train: Encoded, pad_id: int, ranks: Ranks = ALONE) -> None:
        self._config, self.train, self.pad_id, self.ranks = config, train, pad_id, ranks
        self._splits = ranks.count > 1 and draws_by_row(
            config.lora, encoder=family_of(architecture(config.model).model_type).encoder
        )
        trainer = config.trainer
        self.steps_per_epoch = math.ceil(len(train.ids) / trainer.effective_batch)
        wanted = trainer.max_steps or math.ceil(trainer.epochs * self.steps_per_epoch)
        self.scheduled_steps = max(1, wanted)
        """The steps that the learning rate's course is stretched over."""
        self.total_steps = trainer.stop_after or self.scheduled_steps
        if self.total_steps > self.scheduled_steps:
            raise ConfigError(
                f"trainer.stop_after={trainer.stop_after} is past the end of {self.scheduled_steps} steps; give fewer, "
                "or more trainer.epochs"
            )
        self._validates = config.data.validates
        self.validate_every = trainer.validate_every or math.ceil(self.total_steps / 5)
        self._lengths, weights = train.lengths, train.weights
        self._full_weight = float(weights.sum()) / len(weights) * min(len(weights), trainer.effective_batch)
        self._epoch = lru_cache(maxsize=2)(self._steps_of_epoch)

    def micro_batches(self, from_step: int, collated: Collator) -> Iterator[MicroBatch]:
        """This rank's micro-batches from the first of step `from_step` to the last of the trial.

        All ranks have the same number in a step. Whole micro-batches are dealt in turn. Those left over are divided:
        each rank has some rows of them, or the first row once more with a weight of 0.
        """
        for step in range(from_step, self.total_steps):
            dealt = self._dealt(len(self._pieces(step)))
            for index in dealt:
                yield self._micro_batch(step, index, collated, last=index == dealt[-1])

    def _dealt(self, pieces: int) -> list[int]:
        whole = pieces - pieces % self.ranks.count
        return [*range(self.ranks.rank, whole, self.ranks.count), *range(whole, pieces)]

    def largest(self, from_step: int, collated: Collator, *, flat: bool) -> MicroBatch:
        """The forward pass with the most tokens, padding included where rows are not `flat`, from a step to the end.

        Where all micro-batches of every step are divided among the ranks, it is this rank's part of one.
        """
        trainer = self._config.trainer
        divided = self._splits and trainer.effective_batch // trainer.micro_batch < self.ranks.count
        rows_at_once = math.ceil(trainer.micro_batch / self.ranks.count) if divided else trainer.micro_batch
        bound = int(np.sort(self._lengths)[-rows_at_once:].sum())
        if not flat:
            bound = int(self._lengths.max()) * min(len(self._lengths), rows_at_once)
        most, found = 0, (from_step, 0)
        for step in range(from_step, self.total_steps):
            for index, rows in enumerate(self._pieces(step)):
                first, end = self._own_rows(len(rows), index) if divided else (0, len(rows))
                own = rows[first : max(end, first + 1)]
                if (tokens := forward_tokens(self._lengths, own, flat=flat)) > most:
                    most, found = tokens, (step, index)
            if most == bound:
                break
        return self._micro_batch(*found, collated, last=False, whole=not divided)

    def padding(self) -> float:
        """Tokens of the first epoch's forward passes padded to their longest row, over those without padding."""
        padded = sum(forward_tokens(self._lengths, rows, flat=False) for step in self._epoch(0) for rows in step)
        return padded / max(1, int(self._lengths.sum()))

    def _pieces(self, step: int) -> list[Rows]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[place]

    def _micro_batch(self, step: int, index: int, collated: Collator, *, last: bool, whole: bool = False) -> MicroBatch:
        pieces = self._pieces(step)
        rows = own = pieces[index]
        part = None
        if not whole and index >= len(pieces) - len(pieces) % self.ranks.count:
            first, end = self._own_rows(len(rows), index)
            part = PartOf(collated(self.train, rows, self.pad_id), first)
            own, rows = rows[first:end], rows[first : max(end, first + 1)]
        weight = float(self.train.weights[own].sum())
        of_step = weight / sum(float(self.train.weights[piece].sum()) for piece in pieces)
        batch = collated(self.train, rows, self.pad_id)
        tokens = self.train.tokens_of(np.concatenate(pieces)) if last else 0
        return MicroBatch(batch, step, index, weight / self._full_weight, of_step, last, tokens, part)

    def _own_rows(self, rows: int, index: int) -> tuple[int, int]:
        # From and to which of a micro-batch's rows this rank computes; from 0 to 0 if none.
        rank, count = self.ranks.rank, self.ranks.count
        if not self._splits:
            return 0, rows if rank == index % count else 0
        first, end = rows * rank // count, rows * (rank + 1) // count
        return (first, end) if end > first else (0, 0)

    def waiting_note(self) -> str | None:
        """A line where ranks only wait: a step has fewer micro-batches than ranks, and these are not divided."""
        pieces, count = len(self._pieces(0)), self.ranks.count
        if self._splits or pieces >= count:
            return None
        return (
            f"{count - pieces} of device.count={count} devices wait in every step: it has {pieces} "
            f"micro-batch{'es' * (pieces > 1)}, whose dropout is drawn for all rows at once; give a smaller "
            "trainer.micro_batch"
        )

    def epoch_at(self, step: int) -> float:
        """Passes over the training rows after `step` steps."""
        return step / self.steps_per_epoch

    def is_kept_after(self, step: int) -> bool:
        """Whether the trial is validated, if any rows validate, and kept in a checkpoint when `step` steps are done."""
        return step % self.validate_every == 0 or step == self.total_steps

    def validates_after(self, step: int) -> bool:
        """Whether the trial is validated when `step` steps are done."""
        return self._validates and self.is_kept_after(step)

    def _steps_of_epoch(self, epoch: int) -> list[list[Rows]]:
        config = self._config
        return epoch_steps(
            self._lengths,
            micro_batch=config.trainer.micro_batch,
            effective_batch=config.trainer.effective_batch,
            seed=config.order_seed,
            epoch=epoch,
            bucketed=config.data.batching is Batching.bucketed,
        )


def random_state(seed: int, step: int, index: int) -> int:
    """The seed of everything random in a micro-batch: dropout needs no saved generator state."""
    return ((seed * 1_000_003 + step) * 1_009 + index) % 2**63
