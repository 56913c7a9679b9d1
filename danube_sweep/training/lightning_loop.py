"""The LightningModule: a pack of trials over one frozen backbone. An ordinary run is a pack of one.

In a step every trial draws its next micro-batch, and all rows pass through the backbone together. The sum of the
trials' losses is differentiated: their parameters are disjoint, so each trial's gradient is exactly its own. At its
step border a trial is updated, written and validated. It leaves when it has ended, and another may take its place.
Lightning keeps device, loop, callbacks and hooks; steps are a trial's own.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, Self, final

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.utils.data import IterableDataset

from danube_sweep.errors import TrialFailed
from danube_sweep.optimizer.build_optimizer import answering
from danube_sweep.training import checks
from danube_sweep.training.evaluate import Evaluation
from danube_sweep.training.longest_step import try_longest_step
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.ranks import ALONE, Ranks
from danube_sweep.training.shards import Gathered
from danube_sweep.training.step_plan import Collator, MicroBatch, random_state
from danube_sweep.training.trial import ActiveTrial, Phase, sparing

Micros = list[tuple[ActiveTrial, MicroBatch]]


class BorderDecisions(Protocol):
    """Decides at its step border whether a trial stays in the pack, and who comes in the place of one that has left."""

    def leaves(self, trial: ActiveTrial) -> bool:
        """Whether the trial is to leave here, with a checkpoint."""

    def left(self, trial: ActiveTrial) -> list[ActiveTrial]:
        """Takes a trial that does not train any more; returns those that take its place."""


@final
class Ticks(IterableDataset[int]):
    """An endless count for Lightning's loop. Each trial draws its batches itself, from its own position."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


@final
class PackModule(L.LightningModule):
    """Trains `trials` together, and those that `decisions` puts in the place of others."""

    def __init__(
        self,
        pack: TrainingPack,
        trials: Sequence[ActiveTrial],
        decisions: BorderDecisions,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.pack, self._decisions, self._ranks = pack, decisions, ranks
        self.body, self.lm_head = pack.backbone.body, pack.backbone.lm_head
        self._entering = list(trials)
        self._clock_s = self.pack.clock_s()

    def cpu(self) -> Self:
        # Lightning moves a module to the CPU when it has fitted; the trial is scored and saved where it trained, and
        # bitsandbytes' int8 layers do not survive the move.
        return self

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # The device is settled now. Lightning would keep the optimizers, and with them stacks of trials that have left.
        self._collated = Collator(self.pack.backbone.device)
        self._enter(self._entering)
        self._entering = []
        return []

    def on_train_start(self) -> None:
        # Lightning leaves Hugging Face models in eval mode, and so gradient checkpointing off.
        self.train()
        checks.check_precision(self.pack.backbone)
        self._frozen = checks.frozen_digest(self.pack.backbone)
        try_longest_step(self.pack, self._collated)
        self._agree()
        self._clock_s = self.pack.clock_s()  # earlier time was set-up

    def training_step(self, batch: int, batch_idx: int) -> None:
        self._sweep_out()  # who had ended before it began: resumed at its end
        if not self.pack.trials:
            self.trainer.should_stop = True
            return
        micros: Micros = [(trial, trial.draw()) for trial in self.pack.trials]
        trained = [trial for trial, _ in micros]
        losses = self._losses(micros)
        if self.pack.backbone.sharded:  # a rank without a loss would not come to gathering blocks for the others
            self._agree()
            losses = losses if any(trial.phase is Phase.running for trial in trained) else []
        if losses:
            self.manual_backward(torch.stack(losses).sum())
            self.pack.adapters.bind()
        for trial, micro in micros:
            if trial.phase is Phase.running:
                with sparing(trial):
                    trial.after_backward(micro)
        self._agree()  # before the ranks' gradients are summed: one that has failed would not come to that
        for trial, _ in micros:
            if trial.at_border and trial.phase is Phase.running:
                with sparing(trial):
                    trial.update()
        self._agree()
        self._charge(trained, validating=False)
        self._cross_borders(trained)
        self._sweep_out()
        self.trainer.should_stop = not self.pack.trials

    # ------------------------------------------------------------------------------------------------ in a step

    def _losses(self, micros: Micros) -> list[torch.Tensor]:
        first_trial, first = micros[0]
        # Dropout of PEFT's layers is a pack of one's own; every head draws as it would alone.
        torch.manual_seed(random_state(first_trial.config.seed, first.step, first.index))
        losses = []
        for (trial, micro), own_BTH in zip(micros, self.pack.hidden(micros), strict=True):
            torch.manual_seed(random_state(trial.config.seed, micro.step, micro.index))
            with sparing(trial):
                losses.append(trial.loss(own_BTH, micro))
        return losses

    def _cross_borders(self, trained: Sequence[ActiveTrial]) -> None:
        at_border = [trial for trial in trained if trial.at_border and trial.phase is Phase.running]
        if not at_border:
            return
        leaving = {id(trial) for trial in at_border if self._decisions.leaves(trial)}
        for trial in at_border if self._ranks.leads else []:
            with sparing(trial):
                trial.write(id(trial) in leaving)
        self._charge(trained, validating=False)
        self._follow()
        at_border = [trial for trial in at_border if trial.phase is Phase.running]
        if kept := [trial for trial in at_border if trial.plan.is_kept_after(trial.done.step)]:
            checks.check_alike([one.model.parameters for one in kept], self._ranks)
        validating = [trial for trial in at_border if trial.validates]
        with ExitStack() as stack:
            for trial in kept:  # their checkpoints answer too, whether or not rows validate
                stack.enter_context(answering(trial.optimizer))
            found: dict[int, Evaluation] = {}
            if validating:
                evaluations = self.pack.evaluate(validating, "validation", self._ranks)
                found.update(zip(map(id, validating), evaluations, strict=True))
            gathered = self._gathered(at_border, leaving)
            if self._ranks.leads:
                self._keep(at_border, found, leaving, gathered)
        self._follow()
        self._charge(validating or trained, validating=bool(validating))

    def _gathered(self, at_border: Sequence[ActiveTrial], leaving: set[int]) -> Gathered | None:
        # Divided weights are those of a pack of one.
        for trial in at_border:
            if trial.shards and self._ranks.said(bool(leaving) or trial.plan.is_kept_after(trial.done.step)):
                return trial.gather()
        return None

    def _keep(
        self,
        at_border: Sequence[ActiveTrial],
        found: dict[int, Evaluation],
        leaving: set[int],
        gathered: Gathered | None,
    ) -> None:
        for trial in at_border:
            with sparing(trial):
                trial.keep(found.get(id(trial)), id(trial) in leaving, gathered)
        # Trials that validate together are judged together: each is kept, and its validation written, before any.
        for trial in [trial for trial in at_border if trial.phase is Phase.running]:
            with sparing(trial):
                trial.cross(id(trial) in leaving)

    def _agree(self) -> None:
        # A trial that has failed on one rank has failed on all of them.
        trials = self.pack.trials
        failed = self._ranks.either([trial.phase is Phase.failed for trial in trials])
        if self._ranks.count == 1 or not any(failed):
            return
        errors = [trial.error for trial in trials]
        reasons = self._ranks.each([None if one is None else f"{type(one).__name__}: {one}" for one in errors])
        for place, trial in enumerate(trials):
            if failed[place] and trial.phase is not Phase.failed:
                rank, said = next((rank, said[place]) for rank, said in enumerate(reasons) if said[place])
                trial.phase, trial.error = Phase.failed, TrialFailed(f"on rank {rank}: {said}")

    def _follow(self) -> None:
        # The leading rank's phases are everybody's.
        phases = self._ranks.said([trial.phase for trial in self.pack.trials])
        for trial, phase in zip(self.pack.trials, phases, strict=True):
            trial.phase = phase

    def _charge(self, trials: Sequence[ActiveTrial], *, validating: bool) -> None:
        # The pack's time since it was last charged, in equal parts.
        now = self.pack.clock_s()
        share, self._clock_s = (now - self._clock_s) / len(trials), now
        for trial in trials:
            trial.charge(share, validating=validating)

    # ----------------------------------------------------------------------------------------- coming and going

    def _sweep_out(self) -> None:
        while gone := [trial for trial in self.pack.trials if trial.phase is not Phase.running]:
            checks.check_frozen(self._frozen, self.pack.backbone)
            for trial in gone:
                entering = self._decisions.left(trial)
                self.pack.arrange([one for one in self.pack.trials if one is not trial])
                self._enter(entering)
                if entering:
                    try_longest_step(self.pack, self._collated)
                    self._agree()
            self._clock_s = self.pack.clock_s()

    def _enter(self, trials: Sequence[ActiveTrial]) -> None:
        if trials:
            self.pack.arrange([*self.pack.trials, *trials])
        for trial in trials:
            trial.model.head.train()
            checks.check_trainable(trial.config.lora, trial.model.adapter, trial.model.head)
            with sparing(trial):
                trial.start(self._collated)
        if trials:
            self._agree()
            self._follow()
            checks.check_alike([one.model.parameters for one in trials], self._ranks)
        self._keep_prefix([trial for trial in trials if trial.phase is Phase.running])
        for trial in trials:
            trial.journal.show()

    def _keep_prefix(self, trials: Sequence[ActiveTrial]) -> None:
        # The leading rank has the lines, and tells that it lives: it writes, and the others read.
        if self._ranks.leads:
            self.pack.keep_prefix(trials)
        self._ranks.said(None)
        if not self._ranks.leads:
            self.pack.keep_prefix(trials)


def fit(module: PackModule, *, accelerator: str) -> None:
    """Trains until no trial of the pack is left."""
    loader: Any = torch.utils.data.DataLoader(Ticks(), batch_size=None)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=[torch.cuda.current_device()] if accelerator == "cuda" else 1,
        precision="32-true",  # the backbone's own context computes in its type, every trial scales its own loss
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],  # whatever a cluster's variables say, this is one process of Lightning's
    )
    trainer.fit(module, loader)
