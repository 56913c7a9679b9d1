"""The LightningModule: a pack of trials over one frozen backbone; an ordinary run is a pack of one.

A batch holds one micro-batch of every running trial. The backbone sees their rows together, each trial gets its own
hidden states back, and the sum of the trials' losses is differentiated: their parameters are disjoint, so each
trial's gradient is exactly its own. Lightning keeps device, loop, callbacks and hooks; steps are a trial's own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, final

import lightning as L
import torch
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from danube_sweep import guard
from danube_sweep.active import ActiveTrial, Phase
from danube_sweep.errors import ConfigError
from danube_sweep.model import Backbone
from danube_sweep.schema import NoAdapter
from danube_sweep.steps import MicroBatch, random_state


@dataclass(frozen=True)
class PackBatch:
    """Trial number -> its micro-batch."""

    micro: dict[int, MicroBatch]

    def to(self, device: torch.device) -> "PackBatch":
        return PackBatch({number: micro.to(device) for number, micro in self.micro.items()})


@final
class PackLoader(IterableDataset[PackBatch]):
    """Draws from every running trial until none is left."""

    def __init__(self, trials: list[ActiveTrial]) -> None:
        self._trials = trials

    def __iter__(self) -> Iterator[PackBatch]:
        streams = {number: trial.micro_batches() for number, trial in enumerate(self._trials)}
        while True:
            running = [number for number, trial in enumerate(self._trials) if trial.phase is Phase.running]
            drawn = {number: next(streams[number], None) for number in running}
            micro = {number: one for number, one in drawn.items() if one is not None}
            if not micro:
                return
            yield PackBatch(micro)


@final
class PackModule(L.LightningModule):
    """Trains `trials` together; `stopping` is asked at every step border of every trial."""

    def __init__(self, backbone: Backbone, trials: list[ActiveTrial], stopping: Callable[[], bool]) -> None:
        super().__init__()
        if len(trials) > 1 and any(not isinstance(trial.config.lora, NoAdapter) for trial in trials):
            raise ConfigError("trials with adapters train one at a time; only lora=none shares a backbone so far")
        self.automatic_optimization = False
        self.backbone, self.trials, self._stopping = backbone, trials, stopping
        self.body, self.lm_head = backbone.body, backbone.lm_head
        self.heads = torch.nn.ModuleList(trial.head for trial in trials)
        self._first_step = True

    def cpu(self) -> Self:
        # Lightning moves a module to the CPU when it has fitted; the trial is scored and saved where it trained, and
        # bitsandbytes' int8 layers do not survive the move.
        return self

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [trial.start(self.backbone) for trial in self.trials]

    def on_train_start(self) -> None:
        # Lightning leaves Hugging Face models in eval mode, and so gradient checkpointing off.
        self.train()
        guard.check_precision(self.backbone)
        for trial in self.trials:
            guard.check_trainable(trial.config.lora, trial.adapter, trial.head)
        self._frozen = guard.frozen_digest(self.backbone)
        for trial in self.trials:
            trial.start_clock()

    def transfer_batch_to_device(self, batch: PackBatch, device: torch.device, dataloader_idx: int) -> PackBatch:
        return batch.to(device)

    def training_step(self, batch: PackBatch, batch_idx: int) -> None:
        present = [(self.trials[number], micro) for number, micro in batch.micro.items()]
        present = [(trial, micro) for trial, micro in present if trial.phase is Phase.running]
        if not present:
            return
        losses = self._losses(present)
        self.manual_backward(torch.stack(losses).sum())
        for trial, micro in present:
            trial.after_backward(micro, self._stopping)
        if all(trial.phase is not Phase.running for trial in self.trials):
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        guard.check_frozen(self._frozen, self.backbone)

    def _losses(self, present: list[tuple[ActiveTrial, MicroBatch]]) -> list[torch.Tensor]:
        first_trial, first = present[0]
        # Dropout inside the backbone is a pack of one's own (adapters); every head draws as it would alone.
        torch.manual_seed(random_state(first_trial.config.seed, first.step, first.index))
        hidden_BTH = self._hidden([micro for _, micro in present])
        rows = [micro.batch.input_ids_BT.shape[0] for _, micro in present]
        losses = []
        for (trial, micro), own_BTH in zip(present, torch.split(hidden_BTH, rows), strict=True):
            torch.manual_seed(random_state(trial.config.seed, micro.step, micro.index))
            losses.append(trial.loss(own_BTH[:, : micro.batch.input_ids_BT.shape[1]], micro))
        return losses

    def _hidden(self, micros: list[MicroBatch]) -> torch.Tensor:
        length = max(micro.batch.input_ids_BT.shape[1] for micro in micros)
        ids_BT = torch.cat([_widen(micro.batch.input_ids_BT, length) for micro in micros])
        mask_BT = torch.cat([_widen(micro.batch.mask_BT, length) for micro in micros])
        if not self._first_step:
            return self.backbone.hidden(ids_BT, mask_BT)
        self._first_step = False
        guard.check_train_mode(self.backbone)
        with guard.compute_checked(self.backbone):
            return self.backbone.hidden(ids_BT, mask_BT)


def _widen(values_BT: torch.Tensor, length: int) -> torch.Tensor:
    return values_BT if values_BT.shape[1] == length else F.pad(values_BT, (0, length - values_BT.shape[1]))


def fit(module: PackModule, *, accelerator: str) -> None:
    """Trains the pack to the end of every trial in it, or to the next step border once `stopping` says so."""
    loader: Any = torch.utils.data.DataLoader(PackLoader(module.trials), batch_size=None)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision="32-true",  # the backbone's own context computes in its type, every trial scales its own loss
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
