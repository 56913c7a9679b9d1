"""The reports of a trial while it trains: rows of metrics.csv, the tracker, the terminal, and divergence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch

from danube_sweep.config.schema import Config
from danube_sweep.errors import Diverged
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Screen, duration
from danube_sweep.tracking import MetricsFile, Tracker
from danube_sweep.tracking.metrics_file import MEMORY, SAMPLED
from danube_sweep.training.step_plan import StepPlan

MOST_OVERFLOWS = 20
STEP_COLUMNS = ["step", "part", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds"]


@dataclass
class Surroundings:
    """Where a trial writes: its folder, the tracker and the terminal."""

    folder: RunFolder
    tracker: Tracker
    terminal: Screen
    label: str
    manifest: dict[str, Any] = field(default_factory=dict)
    """The fields of every checkpoint of this trial: identity, classes, pad id, versions."""
    predicted: dict[str, float] = field(default_factory=dict)
    """The planner's predictions, for the result and for the note about the time left."""
    told: list[tuple[str, list[str]]] = field(default_factory=list)
    """Lines for the terminal when training begins, grouped by their subject."""


@final
class Journal:
    """The steps and validations of one trial, written in their order; steps wait until some are written at once."""

    def __init__(self, config: Config, plan: StepPlan, where: Surroundings) -> None:
        self._config, self._plan, self._where = config, plan, where
        on_gpu = config.device.accelerator != "cpu" and torch.cuda.is_available()
        sampled = SAMPLED if on_gpu else ()
        self._metrics_file = MetricsFile(where.folder.metrics, [*STEP_COLUMNS, *sampled, *config.head.metrics])
        self._pending: list[dict[str, Any]] = []
        self._tokens_written, self._seconds_written = 0, 0.0
        self._timed = False
        self._begun_at: int | None = None

    def begin(self, step: int, *, tokens: int, seconds: float) -> None:
        """Continues after `step`, 0 for a fresh trial, with the tokens and seconds so far. Later rows are dropped."""
        self._tokens_written, self._seconds_written = tokens, seconds
        lost = self._metrics_file.resume(after_step=step)
        for about, lines in self._where.told:
            self._where.terminal.tell(about, lines)
        if lost is not None:
            self._where.terminal.note(lost)
        if step:
            self._where.terminal.note(f"resumed at step {step} of {self._plan.total_steps}")
        self._begun_at = step

    def show(self) -> None:
        """Shows the trial's bar, from the step that it begins at: the time left counts from here."""
        if self._begun_at is not None:
            self._where.terminal.start(self._where.label, self._plan.total_steps, self._begun_at)

    def add(self, step: int, *, loss: torch.Tensor | None, lr: float, grad_norm: torch.Tensor, tokens: int) -> None:
        """Takes a step; its loss and its gradient's norm stay on their device until they are written."""
        row = {"step": step, "part": "train", "epoch": self._plan.epoch_at(step)}
        self._pending.append({**row, "loss": loss, "lr": lr, "grad_norm": grad_norm, "tokens": tokens})

    @property
    def is_full(self) -> bool:
        """Whether enough steps wait to be written."""
        return len(self._pending) >= self._config.trainer.log_every

    def write(self, seconds: float, *, companions: int, overflows: int) -> float:
        """Writes the steps that wait, after so many seconds of training; returns the last one's loss.

        `overflows`: steps in a row that fp16 has skipped. Raises Diverged for too many, or for a loss that is not
        finite; the rows are then written.
        """
        values = torch.stack([torch.stack([row["loss"].float(), row["grad_norm"].float()]) for row in self._pending])
        for row, (loss, norm) in zip(self._pending, values.tolist(), strict=True):
            row.update(loss=loss, grad_norm=norm)
        self._pending[-1]["seconds"] = seconds
        if values.is_cuda:
            self._pending[-1][MEMORY] = torch.cuda.memory_allocated(values.device)  # of a pack, its whole
        rows, self._pending = self._pending, []
        self._metrics_file.append(rows)
        last = rows[-1]
        tokens, elapsed = last["tokens"] - self._tokens_written, seconds - self._seconds_written
        self._tokens_written, self._seconds_written = last["tokens"], seconds
        if not self._timed:
            self._timed = True
            self._note_time_left(last["step"], elapsed / len(rows), companions)
        rate = tokens / max(elapsed, 1e-9)
        self._where.terminal.update(self._where.label, last["step"], loss=last["loss"], tokens_per_s=rate)
        logged = {"train/loss": last["loss"], "train/lr": last["lr"], "train/grad_norm": last["grad_norm"]}
        self._where.tracker.log(last["step"], {**logged, "train/tokens_per_s": rate})
        self._check_finite(rows, overflows)
        return float(last["loss"])

    def add_validation(self, step: int, seconds: float, metrics: Mapping[str, float], *, best: bool) -> None:
        """Writes a validation after `step`; `best`: it is the best so far."""
        row: dict[str, Any] = {"step": step, "part": "validation", "epoch": self._plan.epoch_at(step)}
        self._metrics_file.append([{**row, "seconds": seconds, **metrics}])
        self._where.tracker.log(step, {f"validation/{name}": metric for name, metric in metrics.items()})
        shown = "  ".join(f"{name} {metric:.4f}" for name, metric in metrics.items())
        self._where.terminal.note(f"step {step} validation  {shown}{'  best' if best else ''}")

    def _note_time_left(self, step: int, step_s: float, companions: int) -> None:
        # The planner's figure is corrected by the first steps; validations come on top. A trial of a pack waits for the
        # others, but only its own share of the step is compared with its prediction.
        left_s = (self._plan.total_steps - step) * step_s * companions
        expected = self._where.predicted.get("seconds_per_step")
        said = "" if expected is None else f" (predicted {expected:.2g})"
        share = "" if companions == 1 else f", its share in a pack of {companions}"
        self._where.terminal.note(f"a step takes {step_s:.2g} s{said}{share}: {duration(left_s)} of training left")

    def _check_finite(self, rows: list[dict[str, Any]], overflows: int) -> None:
        if overflows >= MOST_OVERFLOWS:
            raise Diverged(f"fp16 overflowed in {overflows} steps in a row; use precision=bf16 or fp32")
        bad = next((row["step"] for row in rows if not math.isfinite(row["loss"])), None)
        if bad is not None:
            raise Diverged(
                f"the loss is not finite at step {bad}; lower optimizer.lr={self._config.optimizer.lr:g}, "
                "set trainer.clip_norm, or use precision=bf16 or fp32"
            )
