"""The learning curve of a trial, from metrics.csv, whole or as far as it has come."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from danube_sweep.tracking.metrics_file import MEMORY

_RATES: Final = 16
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Training loss and validations of a trial, by step and by seconds of training."""

    steps: Floats
    seconds: Floats
    losses: Floats
    """Of training; each point is the mean of the steps since the one before."""
    rates: tuple[Floats, Floats]
    """Steps and the learning rates there."""
    memory: tuple[Floats, Floats]
    """Seconds and the bytes of the GPU in use there; empty where none were sampled."""
    at_steps: Floats
    at_seconds: Floats
    values: Floats
    """Of the metric, at each validation."""
    epoch: float
    """How far it has come."""
    step: int
    last_loss: float | None


def curve_metric(ranked: str) -> str:
    """The metric that the curves show: the validation metric that ranks, else log_loss, as others are measured once."""
    return ranked.rpartition("/")[2] if ranked.startswith("validation/") else "log_loss"


def read_curve(file: Path, metric: str, most: int = 40) -> Curve | None:
    """The curve in metrics.csv, at most `most` points of each kind; None without a whole row, or for a damaged file.

    A last line that is being written, or was cut, is left out.
    """
    try:
        whole, newline, _ = file.read_bytes().rpartition(b"\n")
        table = csv.read_csv(io.BytesIO(whole + newline), read_options=csv.ReadOptions(use_threads=False))
        part = np.asarray(table["part"].to_pylist(), dtype=object)
        columns = {name: _numbers(table, name) for name in ("step", "epoch", "loss", "seconds")}
        extra = {name: _numbers(table, name) for name in ("lr", MEMORY) if name in table.column_names}
        value = _numbers(table, metric) if metric in table.column_names else np.full(len(part), np.nan)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
    if not len(part):
        return None
    step, seconds, loss = columns["step"], _filled(columns["step"], columns["seconds"]), columns["loss"]
    trained, validated = part == "train", (part == "validation") & np.isfinite(value)
    ending = loss[trained]
    steps, at_seconds, losses = _thinned(most, step[trained], seconds[trained], loss[trained])
    chosen = _picked(most, np.flatnonzero(validated))
    return Curve(
        rates=_known(_RATES, step, extra.get("lr"), trained),
        memory=_known(most, seconds, extra.get(MEMORY), trained),
        steps=steps,
        seconds=at_seconds,
        losses=losses,
        at_steps=step[chosen],
        at_seconds=seconds[chosen],
        values=value[chosen],
        epoch=float(np.nanmax(columns["epoch"], initial=0.0)),
        step=int(np.nanmax(step, initial=0)),
        last_loss=float(ending[-1]) if len(ending) and np.isfinite(ending[-1]) else None,
    )


def _numbers(table: Any, name: str) -> Floats:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)


def _known(most: int, places: Floats, values: Floats | None, chosen: Any) -> tuple[Floats, Floats]:
    """At most `most` of the finite values with their places."""
    if values is None:
        return np.zeros(0), np.zeros(0)
    kept = _picked(most, np.flatnonzero(chosen & np.isfinite(values)))
    return places[kept], values[kept]


def _filled(steps: Floats, seconds: Floats) -> Floats:
    # The clock is read only when rows are written: between two readings every step takes as long.
    known = np.isfinite(seconds)
    if not known.any():
        return np.zeros(len(steps))
    places, first = np.unique(steps[known], return_index=True)
    found = np.interp(steps, np.concatenate([[0.0], places]), np.concatenate([[0.0], seconds[known][first]]))
    return np.asarray(found, dtype=np.float64)


def _thinned(most: int, steps: Floats, seconds: Floats, losses: Floats) -> tuple[Floats, Floats, Floats]:
    finite = np.isfinite(losses)
    steps, seconds, losses = steps[finite], seconds[finite], losses[finite]
    if len(steps) <= most:
        return steps, seconds, losses
    borders = np.linspace(0, len(steps), most + 1).astype(int)
    means = np.add.reduceat(losses, borders[:-1]) / np.diff(borders)
    return steps[borders[1:] - 1], seconds[borders[1:] - 1], means


def _picked(most: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]
