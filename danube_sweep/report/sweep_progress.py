"""How far the running trials of a sweep are, and how long the rest will take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from danube_sweep.config.finite_number import is_finite_number
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.report.learning_curves import read_curve
from danube_sweep.report.slot_times import attempt_lines, started_s
from danube_sweep.results.trial_results import RUNNING, UNDER_WAY, StoredTrial
from danube_sweep.storage.run_folder import number_at


@dataclass(frozen=True)
class Progress:
    """A trial that trains now."""

    trial: str
    step: int
    share: float | None
    """Of its training, 0 to 1; None while it is built."""
    left_s: float | None
    loss: float | None
    validation: float | None = None
    """Of the metric that the sweep is ranked by, at its last validation; None before the first."""


@dataclass(frozen=True)
class Standing:
    """A sweep at a moment."""

    running: list[Progress]
    ended: int
    total: int
    """Includes the trials that a search has still to draw."""
    left_s: float | None
    """Until all have ended, if the rest takes as long as those before; None when nothing is known."""

    @property
    def is_over(self) -> bool:
        return self.ended >= self.total


def standing(trials: Sequence[StoredTrial], now_s: float, to_draw: int | None, metric: str = "log_loss") -> Standing:
    """Where the sweep is; `to_draw` is how many trials a search is to have, None for a grid.

    `metric` is the validation metric to show of running trials.
    """
    running = [_progress(trial, now_s, metric) for trial in trials if trial.state == RUNNING]
    still_open = sum(trial.state in UNDER_WAY for trial in trials)
    total = max(len(trials), to_draw or 0)
    ended = len(trials) - still_open
    waiting = total - ended - len(running)
    return Standing(running, ended, total, _left_s(trials, running, waiting))


def _progress(trial: StoredTrial, now_s: float, metric: str) -> Progress:
    curve = read_curve(trial.folder.metrics, metric)
    if curve is None:
        return Progress(trial.name, 0, None, None, None)
    share = _share(trial, curve.epoch, curve.step)
    started = started_s(trial)
    # A resumed trial has come further than its present attempt did: its curve knows the training seconds of all.
    trained_s = float(curve.seconds[-1]) if len(curve.seconds) else 0.0
    took_s = None if started is None else max(now_s - started, trained_s)
    left_s = None if took_s is None or not share else took_s * (1 - share) / share
    last = float(curve.values[-1]) if len(curve.values) else None
    return Progress(trial.name, curve.step, share, left_s, curve.last_loss, last)


def _share(trial: StoredTrial, epoch: float, step: int) -> float | None:
    steps, epochs = trial.config.get("trainer.max_steps"), trial.config.get("trainer.epochs")
    steps = trial.config.get("trainer.stop_after") or steps
    done, wanted = (step, steps) if steps else (epoch, epochs)
    return min(done / wanted, 1.0) if is_finite_number(wanted) and wanted > 0 else None


def _left_s(trials: Sequence[StoredTrial], running: Sequence[Progress], waiting: int) -> float | None:
    took = [seconds for trial in trials if trial.state in COMPLETE and (seconds := _seconds(trial)) is not None]
    mean_s = fmean(took) if took else None
    each = [one.left_s if one.left_s is not None else mean_s for one in running]
    if any(left is None for left in each) or (waiting > 0 and mean_s is None):
        return None
    slots = max(len(running), 1)
    return sum(left or 0.0 for left in each) / slots + max(waiting, 0) * (mean_s or 0.0) / slots


def _seconds(trial: StoredTrial) -> float | None:
    for said in reversed(attempt_lines(trial.folder)):
        if (seconds := number_at(said, "seconds")) is not None:
            return seconds
    return None


def changed(path: Path) -> float:
    """Something that differs once a trial of the sweep has ended or was added."""
    files = [*path.glob("*/result.json"), *path.glob("*/attempts.jsonl"), *path.glob("*/trial.json")]
    return sum(file.stat().st_mtime for file in files if file.exists())
