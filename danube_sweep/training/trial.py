"""A trial while it trains: everything of a pack that is one trial's own.

Its steps, loss, clipping, optimizer, schedule, loss scale, early stop, checkpoints and logging are here; the backbone,
the forward pass and evaluation belong to the pack (pack.py), the order of things in a step to module.py.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from danube_sweep import lora
from danube_sweep.config.schema import HIGHER_IS_BETTER, Compute, Config, Lora
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import CheckpointError, Diverged
from danube_sweep.head.base_head import Head
from danube_sweep.lora import PackedAdapter
from danube_sweep.model.backbone import Backbone
from danube_sweep.optimizer.build_optimizer import build_optimizer, to_training
from danube_sweep.optimizer.schedule import build_schedule
from danube_sweep.storage import checkpoint
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Screen, duration
from danube_sweep.tracking import MetricsFile, Tracker
from danube_sweep.training import checks, trained_weights
from danube_sweep.training.evaluate import Evaluation
from danube_sweep.training.step_plan import Collator, MicroBatch, StepPlan

MOST_OVERFLOWS = 20
Row = dict[str, float | int | str | None]
Prune = Callable[[int, dict[str, float]], bool]
"""Told the number of validations so far and the last one's metrics, says whether to end the trial here."""
STEP_COLUMNS = ["step", "part", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"]


class Phase(Enum):
    """Where a trial of a pack stands."""

    running = "running"
    finished = "finished"
    pruned = "pruned"
    paused = "paused"
    failed = "failed"


@dataclass
class Progressed:
    """What a resumed trial must remember besides weights and optimizer."""

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    last_loss: float = math.nan
    overflows: int = 0
    """Steps in a row that fp16 has skipped."""
    validations: int = 0
    best_step: int | None = None
    best_value: float = math.inf
    """Of the metric that chooses, or its negative where higher is better."""
    validations_since_best: int = 0


@dataclass
class Surroundings:
    """Where a trial writes: its folder, the tracker and the terminal."""

    folder: RunFolder
    tracker: Tracker
    terminal: Screen
    label: str
    manifest: dict[str, Any] = field(default_factory=dict)
    """What every checkpoint of this trial states: identity, classes, pad id, versions."""
    prune: Prune | None = None
    predicted: dict[str, float] = field(default_factory=dict)
    """What the planner expected, for the result and for the word about the time left."""


@final
class ActiveTrial:
    """One trial of a pack: `start` it on its device, feed it its micro-batches, take it over its borders, read `phase`.

    `adapter` is what of the backbone it trains: its own, or parameters that PEFT has put into the backbone by name.
    """

    def __init__(
        self,
        config: Config,
        data: dict[str, Encoded],
        plan: StepPlan,
        head: Head,
        adapter: PackedAdapter | dict[str, nn.Parameter],
        backbone: Backbone,
        where: Surroundings,
    ) -> None:
        self.config, self.data, self.plan, self.backbone = config, data, plan, backbone
        self.head, self.where = head, where
        self.packed = adapter if isinstance(adapter, PackedAdapter) else None
        self.adapter = adapter.parameters if isinstance(adapter, PackedAdapter) else adapter
        self.done = Progressed()
        self.phase = Phase.running
        self.error: Exception | None = None
        self.dismissal: str | None = None
        """Why it was asked to leave before its end, where it was."""
        self.at_border = False
        self.companions = self.most_companions = 1
        """The trials that train in its pack, itself included: now, and at most so far."""
        self.checkpoints = checkpoint.Checkpoints(where.folder.checkpoints)
        self.metrics_file = MetricsFile(where.folder.metrics, [*STEP_COLUMNS, *config.head.metrics])
        self._pending: list[dict[str, Any]] = []
        self._step_loss: torch.Tensor | None = None
        self._tokens_written, self._seconds_written = 0, 0.0
        self._timed = False

    # ------------------------------------------------------------------------------------------- start, resume

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trainable parameter: the adapter's and the head's."""
        return {**self.adapter, **{f"head.{name}": value for name, value in self.head.named_parameters()}}

    def start(self, collated: Collator) -> None:
        """Builds optimizer, schedule and loss scale once the parameters are on their device, and resumes."""
        config, backbone = self.config, self.backbone
        head = dict(self.head.named_parameters())
        ratio = config.lora.plus_ratio if isinstance(config.lora, Lora) else 1.0
        self.optimizer = build_optimizer(config.optimizer, self.adapter, head, head_lr=config.head.lr, plus_ratio=ratio)
        self.schedule = build_schedule(config.schedule, self.optimizer, total_steps=self.plan.total_steps)
        self.allocation = lora.rank_allocation(backbone, config.lora, total_steps=self.plan.total_steps)
        scaled = config.precision.compute is Compute.fp16
        self.scaler = torch.amp.GradScaler(backbone.device.type, enabled=scaled)
        self._resume()
        to_training(self.optimizer)
        self._stream = self.plan.micro_batches(self.done.step, collated)
        self.where.terminal.start(self.where.label, self.plan.total_steps, self.done.step)

    def _resume(self) -> None:
        steps = self.checkpoints.steps()
        if not steps:
            self.metrics_file.resume(after_step=0)
            return
        folder = self.checkpoints.folder(steps[-1])
        manifest = checkpoint.read_manifest(folder)
        for key, value in self.where.manifest.items():
            if key != "versions" and manifest.get(key) != value:
                raise CheckpointError(f"{folder} was written with another {key}; give another hydra.run.dir")
        trained_weights.load_trained(folder, self.config.lora, self.backbone, self.head, self.packed)
        state = checkpoint.unpack_state(manifest["state"], checkpoint.load_tensors(folder / "training.safetensors"))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.allocation is not None:
            self.allocation.load_state_dict(state["allocation"])
        self.done = Progressed(**state["done"])
        self._tokens_written, self._seconds_written = self.done.tokens, self.done.train_seconds
        self.metrics_file.resume(after_step=self.done.step)
        if self._is_over():
            self.phase = Phase.finished
        self.where.terminal.note(f"resumed at step {self.done.step} of {self.plan.total_steps}")

    # ------------------------------------------------------------------------------------------------ training

    def draw(self) -> MicroBatch:
        """The trial's next micro-batch, from where it stands to its end."""
        return next(self._stream)

    def loss(self, hidden_BTH: torch.Tensor, micro: MicroBatch) -> torch.Tensor:
        """The micro-batch's part of its step's loss, scaled for fp16; its sum over a pack is differentiated."""
        loss = self.head.loss(self.head(hidden_BTH, micro.batch), micro.batch) * micro.share
        self._step_loss = loss.detach() if self._step_loss is None else self._step_loss + loss.detach()
        if self.allocation is not None and micro.last:  # once a step, and no part of the loss that is logged
            loss = loss + self.allocation.penalty()
        scaled: torch.Tensor = self.scaler.scale(loss)
        return scaled

    def after_backward(self, micro: MicroBatch) -> None:
        """Counts the micro-batch; at a step's border updates the weights."""
        self.done.tokens += micro.batch.tokens
        self.where.terminal.alive()
        self.at_border = micro.last
        if not micro.last:
            return
        if self.done.step == 0:
            checks.check_gradients(self.parameters)
        self._update()

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        parameters = list(self.parameters.values())
        limit = self.config.trainer.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        lr = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self._count_overflow()
        if self.allocation is not None and self.done.overflows == 0:
            self.allocation.after_step(self.done.step + 1)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=self.packed is None)  # a packed adapter's gradients are views
        self.done.step += 1
        row = {"step": self.done.step, "part": "train", "epoch": self.plan.epoch_at(self.done.step)}
        self._pending.append({**row, "loss": self._step_loss, "lr": lr, "grad_norm": norm, "tokens": self.done.tokens})
        self._step_loss = None

    def _count_overflow(self) -> None:
        # fp16: a step whose gradients overflowed is skipped and the scale halved; a few at the start are normal.
        before = self.scaler.get_scale()
        self.scaler.update()
        self.done.overflows = self.done.overflows + 1 if self.scaler.get_scale() < before else 0

    def charge(self, seconds: float, *, validating: bool) -> None:
        """Takes its part of the pack's time."""
        if validating:
            self.done.validation_seconds += seconds
        else:
            self.done.train_seconds += seconds

    @property
    def eval_rows(self) -> int:
        """Rows of a forward pass in evaluation."""
        return self.config.trainer.eval_batch or int(self.config.trainer.micro_batch)

    @property
    def validates(self) -> bool:
        """Whether it is validated at the border that it has reached."""
        return self.plan.validates_after(self.done.step)

    def write(self, leaving: bool) -> None:
        """At a border: writes the steps that are due. Raises Diverged if one was not finite."""
        if self.validates or leaving or len(self._pending) >= self.config.trainer.log_every:
            self._write_steps()

    def cross(self, evaluation: Evaluation | None, leaving: bool) -> None:
        """Takes the trial over a border, with its evaluation where one was due; out of the pack if it is to leave."""
        self.at_border = False
        unwanted = False
        if evaluation is not None:
            self._take(evaluation)
            unwanted = self.where.prune is not None and self.where.prune(self.done.validations, evaluation.metrics)
        elif leaving:
            self._save(None)
        if self._is_over():
            self.phase = Phase.finished
        elif unwanted:
            self.phase = Phase.pruned
        elif leaving:
            self.phase = Phase.paused

    def _is_over(self) -> bool:
        out_of_patience = self.done.validations_since_best >= (self.config.trainer.patience or math.inf)
        return self.done.step >= self.plan.total_steps or out_of_patience

    def _write_steps(self) -> None:
        values = torch.stack([torch.stack([row["loss"].float(), row["grad_norm"].float()]) for row in self._pending])
        losses = values.tolist()
        for row, (loss, norm) in zip(self._pending, losses, strict=True):
            row.update(loss=loss, grad_norm=norm)
        self._pending[-1]["seconds"] = self.done.train_seconds
        rows, self._pending = self._pending, []
        self.metrics_file.append(rows)
        last = rows[-1]
        self.done.last_loss = last["loss"]
        tokens, elapsed = last["tokens"] - self._tokens_written, self.done.train_seconds - self._seconds_written
        self._tokens_written, self._seconds_written = last["tokens"], self.done.train_seconds
        if not self._timed:
            self._timed = True
            self._say_time_left(self.companions * elapsed / len(rows))
        rate = tokens / max(elapsed, 1e-9)
        self.where.terminal.update(self.where.label, last["step"], loss=last["loss"], tokens_per_s=rate)
        logged = {"train/loss": last["loss"], "train/lr": last["lr"], "train/grad_norm": last["grad_norm"]}
        self.where.tracker.log(last["step"], {**logged, "train/tokens_per_s": rate})
        if self.done.overflows >= MOST_OVERFLOWS:
            raise Diverged(f"fp16 overflowed in {self.done.overflows} steps in a row; use precision=bf16 or fp32")
        bad = next((row["step"] for row in rows if not math.isfinite(row["loss"])), None)
        if bad is not None:
            raise Diverged(
                f"the loss is not finite at step {bad}; lower optimizer.lr={self.config.optimizer.lr:g}, "
                "set trainer.clip_norm, or use precision=bf16 or fp32"
            )

    def _say_time_left(self, step_s: float) -> None:
        # The planner's figure is corrected by the first steps; validations come on top.
        left_s = (self.plan.total_steps - self.done.step) * step_s
        expected = self.where.predicted.get("seconds_per_step")
        said = "" if expected is None else f" (predicted {expected:.2g})"
        self.where.terminal.note(f"a step takes {step_s:.2g} s{said}: {duration(left_s)} of training left")

    # -------------------------------------------------------------------------------- validation, checkpoints

    def _take(self, evaluation: Evaluation) -> None:
        if not math.isfinite(evaluation.metrics[self.config.head.metrics[0]]):
            raise Diverged(f"the validation loss is not finite after step {self.done.step}; lower optimizer.lr")
        value = evaluation.metrics[self.config.objective]
        value = -value if self.config.objective in HIGHER_IS_BETTER else value
        self.done.validations += 1
        better = value < self.done.best_value
        self.done.validations_since_best = 0 if better else self.done.validations_since_best + 1
        if better:
            self.done.best_step, self.done.best_value = self.done.step, value
        row: Row = {"step": self.done.step, "part": "validation", "epoch": self.plan.epoch_at(self.done.step)}
        self.metrics_file.append([{**row, "seconds": self.done.train_seconds, **evaluation.metrics}])
        named = {f"validation/{name}": metric for name, metric in evaluation.metrics.items()}
        self.where.tracker.log(self.done.step, named)
        shown = "  ".join(f"{name} {metric:.4f}" for name, metric in evaluation.metrics.items())
        self.where.terminal.note(f"step {self.done.step} validation  {shown}{'  best' if better else ''}")
        self._save(evaluation)

    def _save(self, evaluation: Evaluation | None) -> None:
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "done": asdict(self.done),
            "allocation": None if self.allocation is None else self.allocation.state_dict(),
        }
        skeleton, tensors = checkpoint.pack_state(state)
        metrics = None if evaluation is None else evaluation.metrics

        def write_files(folder: Path) -> None:
            base = self.config.model.path
            trained_weights.save_trained(folder, self.config.lora, self.backbone, self.head, base, self.packed)
            checkpoint.save_tensors(tensors, folder / "training.safetensors")
            if evaluation is not None:
                checkpoint.save_tensors(evaluation.tensors(), folder / "predictions.safetensors")

        manifest = {**self.where.manifest, "step": self.done.step, "metrics": metrics, "state": skeleton}
        checkpoint.write_checkpoint(self.checkpoints.folder(self.done.step), manifest, write_files)
        self.checkpoints.keep({self.done.step, self.done.best_step})

    @property
    def best_checkpoint(self) -> Path:
        """The folder of the checkpoint with the best validation."""
        assert self.done.best_step is not None
        return self.checkpoints.folder(self.done.best_step)
