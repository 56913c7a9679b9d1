"""Which rows a trial reads at which step: a function of the step alone, so that any step can be resumed."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch

from danube_sweep.config.schema import Batching, Config
from danube_sweep.data.batches import Batch, Rows, collate, epoch_steps, forward_tokens
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import ConfigError

RECENT = 64
"""Batches that a pack keeps at hand; its trials ask for the same one within a step, or a few steps apart."""


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass of one trial."""

    batch: Batch
    step: int
    index: int
    share: float
    """Its weight in the gradient: the weight of its rows over that of an average full step."""
    of_step: float
    """Its part of the step's own weight; a step's parts sum to 1."""
    last: bool


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

    def __init__(self, config: Config, train: Encoded, pad_id: int) -> None:
        self._config, self.train, self.pad_id = config, train, pad_id
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
        """Every micro-batch from the first of step `from_step` to the last of the trial."""
        for step in range(from_step, self.total_steps):
            for index in range(len(self._pieces(step))):
                yield self._micro_batch(step, index, collated)

    def largest(self, from_step: int, collated: Collator, *, flat: bool) -> MicroBatch:
        """The micro-batch with the most tokens, padding included where rows are not `flat`, from a step to the end."""
        bound = int(np.sort(self._lengths)[-self._config.trainer.micro_batch :].sum())
        if not flat:
            bound = int(self._lengths.max()) * min(len(self._lengths), self._config.trainer.micro_batch)
        most, found = 0, (from_step, 0)
        for step in range(from_step, self.total_steps):
            for index, rows in enumerate(self._pieces(step)):
                if (tokens := forward_tokens(self._lengths, rows, flat=flat)) > most:
                    most, found = tokens, (step, index)
            if most == bound:
                break
        return self._micro_batch(*found, collated)

    def padding(self) -> float:
        """Tokens of the first epoch's forward passes padded to their longest row, over those without padding."""
        padded = sum(forward_tokens(self._lengths, rows, flat=False) for step in self._epoch(0) for rows in step)
        return padded / max(1, int(self._lengths.sum()))

    def _pieces(self, step: int) -> list[Rows]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[place]

    def _micro_batch(self, step: int, index: int, collated: Collator) -> MicroBatch:
        pieces = self._pieces(step)
        weights = [float(self.train.weights[rows].sum()) for rows in pieces]
        own = weights[index] / sum(weights)
        batch = collated(self.train, pieces[index], self.pad_id)
        return MicroBatch(batch, step, index, weights[index] / self._full_weight, own, index == len(pieces) - 1)

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
