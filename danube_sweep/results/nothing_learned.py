"""Whether the best row is better than answering without reading, and why it may not be."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean

from danube_sweep.results.intervals import Intervals
from danube_sweep.results.trial_results import StoredTrial

_CLEARLY = 0.1
"""A training loss this share below the class prior's has learned its rows; above it, it has diverged."""


@dataclass(frozen=True)
class Prior:
    """Answering without reading (the classes' shares of the training rows, or their mean), against the best row."""

    value: float
    """Its metric."""
    better_by: float
    """How much better the best row is; negative if it is worse."""
    half: float | None
    """Half of the 95 % interval of that; None without one."""
    reasons: list[str]
    """Why nothing was learned, the likeliest first, if so."""

    @property
    def nothing_learned(self) -> bool:
        """Whether the best row is not better by more than chance."""
        return self.better_by <= (self.half or 0.0)


def prior_of(metric: str, goal: str, mean: float, found: Intervals, best: Sequence[StoredTrial]) -> Prior | None:
    """The prior against the best row's `mean`; None where it is not known, as in language modelling.

    Trials of an older version tell its metric alone: then it is held against the best row's own interval.
    """
    stated = [number for trial in best if (number := trial.number(_address(metric))) is not None]
    value, half = found.prior or (None, None)
    if value is None or (stated and abs(fmean(stated) - value) > 1e-3 * max(abs(value), 1e-3)):
        # Labels that are shares of several classes are not in the predictions: their prior is only stated.
        value, half = (fmean(stated), found.best) if stated else (None, None)
    if value is None:
        return None
    better = value - mean if goal == "minimize" else mean - value
    prior = Prior(value, better, half, [])
    if not prior.nothing_learned:
        return prior
    if half is not None and better > half / 2:
        few = f"it is better on these rows, which may be too few to tell: {found.resampled}"
        return replace(prior, reasons=[few])
    return replace(prior, reasons=_reasons(best))


def _address(metric: str) -> str:
    return f"references/prior_{metric.rpartition('/')[2]}"


def _reasons(best: Sequence[StoredTrial]) -> list[str]:
    """From how the best row's trials ended: the loss of their last training rows against the class prior's."""
    prior, steps = _mean(best, "references/prior_log_loss"), _mean(best, "steps")
    losses = [loss for trial in best if (loss := _last_loss(trial)) is not None]
    loss = fmean(losses) if losses else None
    rates = [found for trial in best if isinstance(found := trial.config.get("optimizer.lr"), int | float)]
    rate = fmean(rates) if rates else None
    low = f"the learning rate{f' ({rate:.3g})' if rate is not None else ''} may be too low"
    high = low.replace("too low", "too high")
    few = f"{steps:,.0f} steps may be too few" if steps is not None else "the steps may be too few"
    unrelated = "the labels may not follow from the texts"
    if prior is None or loss is None:
        return [low, few, high, unrelated]
    ended = f"its last training loss is {loss:.3f}, the class prior's {prior:.3f}"
    if loss > (1 + _CLEARLY) * prior:
        return [f"{ended}: {high}", unrelated]
    if loss < (1 - _CLEARLY) * prior:
        return [f"{ended}: it has learned its training rows by heart; {unrelated}, or the training rows are too few"]
    return [f"{ended}: {low}", few, unrelated]


def _last_loss(trial: StoredTrial) -> float | None:
    """The mean training loss of the last quarter of the steps, as that of a single one is of a few rows; else that."""
    with (
        suppress(OSError, ValueError, csv.Error),
        trial.folder.metrics.open(encoding="utf-8", newline="") as file,
    ):
        told = [float(row["loss"]) for row in csv.DictReader(file) if row.get("part") == "train" and row.get("loss")]
        if told:
            return fmean(told[-max(1, len(told) // 4) :])
    return trial.number("train_loss")


def _mean(trials: Sequence[StoredTrial], address: str) -> float | None:
    numbers = [number for trial in trials if (number := trial.number(address)) is not None]
    return fmean(numbers) if numbers else None
