"""The trials that train together over one backbone: their common forward pass, and their evaluation.

Axes: B rows, T tokens, H hidden width.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, final

import torch
from torch.nn import functional as F

from danube_sweep.config.facts.adapters import shares_backbone
from danube_sweep.config.facts.architectures import first_adapted
from danube_sweep.data.batches import Batch
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import ConfigError
from danube_sweep.lora import Noise, PackedAdapters
from danube_sweep.model.backbone import Backbone
from danube_sweep.training import checks
from danube_sweep.training.drawn_rows import drawn_for
from danube_sweep.training.evaluate import Evaluation, batches_beside, evaluate_together, evaluation_batches
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.pack.stored_prefix import StoredStates
from danube_sweep.training.ranks import ALONE as ONE_RANK
from danube_sweep.training.ranks import Ranks
from danube_sweep.training.step_plan import MicroBatch, random_state
from danube_sweep.training.trial import ActiveTrial

ALONE: Final = "trials with lora=full, or with adapters of PEFT's own layers, train one at a time"


@final
class TrainingPack:
    """The trials that train now over one backbone, in the order of their adapters' ranks, and their forward pass.

    It alone knows whose rows are where in a batch; who comes and who leaves is decided by run.py.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.adapters = PackedAdapters(backbone)
        self.trials: list[ActiveTrial] = []
        self._prefix = SharedPrefix(backbone)
        self._stored = StoredStates(backbone, self._prefix)
        self._stored.alive, self._stored.say = self._alive, self._say
        self._first_step = True

    def arrange(self, trials: Sequence[ActiveTrial]) -> None:
        """Puts these trials on the backbone. The adapters of trials that stay are unchanged.

        Raises ConfigError for an adapter that cannot share the backbone.
        """
        model_type = self.backbone.body.config.model_type
        if len(trials) > 1 and not all(shares_backbone(trial.config.lora, model_type) for trial in trials):
            raise ConfigError(ALONE)
        self.trials = sorted(trials, key=lambda trial: trial.model.packed.config.rank if trial.model.packed else 0)
        self.adapters.arrange([trial.model.packed for trial in self.trials])
        for trial in self.trials:
            trial.companions = len(self.trials)
            trial.most_companions = max(trial.most_companions, trial.companions)

    def clock_s(self) -> float:
        """Monotonic seconds, without those that kept states took: they count as `prefix_seconds` of the trials."""
        return time.monotonic() - self._stored.seconds

    def keep_prefix(self, trials: Sequence[ActiveTrial]) -> None:
        """Computes the states that these trials of the pack read from disk (data.cache_prefix), where they lack."""
        keeping = [trial for trial in trials if trial.config.data.cache_prefix]
        if not keeping:
            return
        self.adapters.expect([], {})
        block = min(first_adapted(trial.config.lora, self._prefix.blocks) for trial in self.trials)
        with self._charging_prefix():
            for trial in keeping:
                for part in trial.parts_read:
                    self._stored.open(trial.data[part], block)

    @contextmanager
    def _charging_prefix(self) -> Iterator[None]:
        before = self._stored.seconds
        try:
            yield
        finally:
            for trial in self.trials:
                trial.done.prefix_seconds += (self._stored.seconds - before) / len(self.trials)

    def untrained(self) -> Backbone:
        """The backbone without any adapter of the pack, until the next step or evaluation."""
        self.adapters.expect([], {})
        return self.backbone

    def alone(self, trial: ActiveTrial) -> Backbone:
        """The backbone with this trial's adapter, until the next step or evaluation."""
        self.adapters.expect([self.trials.index(trial)], {})
        return self.backbone

    def hidden(self, micros: Sequence[tuple[ActiveTrial, MicroBatch]]) -> list[torch.Tensor]:
        """Each trial's final hidden states [B, T, H] of its micro-batch, for a step of training."""
        noises = {}
        for trial, micro in micros:
            if trial.model.packed is not None and trial.model.packed.config.dropout > 0:
                noises[id(trial)] = self._noise(trial.model.packed.config.dropout, trial.config.seed, micro)
        given = [(trial, trial.plan.train, micro.batch) for trial, micro in micros]
        if not self._first_step:
            return self._forward(given, noises)
        self._first_step = False
        checks.check_train_mode(self.backbone)
        with checks.compute_checked(self.backbone):
            return self._forward(given, noises)

    def evaluate(self, trials: Sequence[ActiveTrial], part: str, ranks: Ranks = ONE_RANK) -> list[Evaluation]:
        """The trials' evaluations on their part of that name; those with the same rows go through together.

        `ranks` share the batches; the leading one has the metrics.
        """
        found: dict[int, Evaluation] = {}
        ordered = [trial for trial in self.trials if trial in trials]
        while ordered:
            alike = [trial for trial in ordered if _reads_like(trial, ordered[0], part)]
            ordered = [trial for trial in ordered if trial not in alike]
            found.update(zip(map(id, alike), self._evaluate_alike(alike, part, ranks), strict=True))
        return [found[id(trial)] for trial in trials]

    def _evaluate_alike(self, trials: Sequence[ActiveTrial], part: str, ranks: Ranks) -> list[Evaluation]:
        first, rows = trials[0], trials[0].data[part]

        def hidden(batch: Batch) -> list[torch.Tensor]:
            return self._forward([(trial, rows, batch) for trial in trials], {})

        given = first.config, rows, first.plan.pad_id, self.backbone, ranks
        return evaluate_together(
            self.backbone,
            [trial.model.head for trial in trials],
            rows,
            hidden=hidden,
            batches=evaluation_batches(*given),
            alive=self._alive,
            ranks=ranks,
            beside=batches_beside(*given),
        )

    def _alive(self) -> None:
        for trial in self.trials:
            trial.where.terminal.alive()

    def _say(self, line: str) -> None:
        for trial in self.trials:
            trial.where.terminal.tell(line, [line])

    def _noise(self, share: float, seed: int, micro: MicroBatch) -> Noise:
        rows, length = micro.batch.input_ids_BT.shape
        whole = None if micro.part is None else drawn_for(micro.part, micro.batch)
        flat = micro.batch.mask_BT.flatten().nonzero().squeeze(1) if self.backbone.flat else None
        return Noise(share, random_state(seed, micro.step, micro.index), rows, length, whole, flat)

    def _forward(
        self, given: Sequence[tuple[ActiveTrial, Encoded, Batch]], noises: dict[int, Noise]
    ) -> list[torch.Tensor]:
        distinct = list({id(batch): (rows, batch) for _, rows, batch in given}.values())
        numbers = {id(batch): number for number, (_, batch) in enumerate(distinct)}
        groups = [numbers[id(batch)] for _, _, batch in given]
        height = max(batch.input_ids_BT.shape[0] for _, batch in distinct)
        width = max(batch.input_ids_BT.shape[1] for _, batch in distinct)
        blocks = self._prefix.blocks
        from_block = min(first_adapted(trial.config.lora, blocks) for trial, _, _ in given)
        if from_block == blocks:  # the same states for all who read the same rows
            groups = list(range(len(distinct)))
        self._expect(given, noises, from_block)
        stored = None
        if given[0][0].config.data.cache_prefix:
            with self._charging_prefix():
                states = [self._stored.batch(rows, batch, from_block) for rows, batch in distinct]
            stored = torch.cat([_filled(one, height, width) for one in states])
        hidden_BTH = self._prefix.hidden(
            torch.cat([_filled(batch.input_ids_BT, height, width) for _, batch in distinct]),
            torch.cat([_filled(batch.mask_BT, height, width) for _, batch in distinct]),
            groups,
            from_block=from_block,
            stored_UTH=stored,
        )
        shares = torch.split(hidden_BTH, height)
        if from_block == blocks:
            shares = tuple(shares[numbers[id(batch)]] for _, _, batch in given)
        return [
            share_BTH[: batch.input_ids_BT.shape[0], : batch.input_ids_BT.shape[1]]
            for share_BTH, (_, _, batch) in zip(shares, given, strict=True)
        ]

    def _expect(
        self,
        given: Sequence[tuple[ActiveTrial, Encoded, Batch]],
        noises: dict[int, Noise],
        from_block: int,
    ) -> None:
        places = {id(trial): place for place, trial in enumerate(self.trials)}
        own = {places[identity]: noise for identity, noise in noises.items()}
        adapted = from_block < self._prefix.blocks
        self.adapters.expect([places[id(trial)] for trial, _, _ in given] if adapted else [], own)


def _reads_like(trial: ActiveTrial, other: ActiveTrial, part: str) -> bool:
    return trial.data[part] is other.data[part] and trial.plan.pad_id == other.plan.pad_id


def _filled(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # Rows of another trial may be longer, or more: padding to the right, and the first row once more.
    missing = width - values.shape[1]
    if missing:
        values = F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))
    if height > len(values):
        values = torch.cat([values, values[:1].expand(height - len(values), *values.shape[1:])])
    return values
