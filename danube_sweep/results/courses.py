"""How far the trials of a sweep have come: their validations so far, by the share of their steps."""

import csv
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from danube_sweep.decoding import json_of
from danube_sweep.storage.run_folder import RunFolder

NEARLY: Final = 1e-6
"""Shares are quotients of whole numbers: a smaller difference is rounding."""


@dataclass(frozen=True)
class Reading:
    """A validation: its number from 1, the share of the trial's steps before it, and its value, lower being better."""

    number: int
    share: float
    value: float


@dataclass(frozen=True)
class Course:
    """A trial's validations in their order, and how many steps it has in all; None while it was never built."""

    readings: tuple[Reading, ...] = ()
    total_steps: int | None = None
    warmup: float = 0.0
    """The share of its steps in which its learning rate rises."""
    finished: bool = False
    """Whether it is known to have come to its end, which is before its last step with trainer.patience."""

    @property
    def share(self) -> float:
        """The share of its steps up to the last validation."""
        return self.readings[-1].share if self.readings else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether it has come to its end."""
        return self.finished or self.share >= 1 - NEARLY

    @property
    def best(self) -> float:
        """The best value so far; infinite without any."""
        return min((reading.value for reading in self.readings), default=math.inf)

    def up_to(self, share: float) -> "Course":
        """The trial as it was at that share of its steps."""
        until = tuple(one for one in self.readings if one.share <= share + NEARLY)
        return replace(self, readings=until, finished=False)


def course_of(folder: RunFolder, metric: str, goal: str) -> Course:
    """The course of a run folder's trial by a validation metric like validation/log_loss; empty if it has none yet."""
    total, warmup = _steps(*_version(folder.environment))
    if total is None:
        return Course()
    sign = -1.0 if goal == "maximize" else 1.0
    rows = _validations(*_version(folder.metrics), metric.removeprefix("validation/"))
    readings = (Reading(number, step / total, sign * value) for number, (step, value) in enumerate(rows, start=1))
    return Course(tuple(readings), total, warmup)


def _version(file: Path) -> tuple[str, int, int, int]:
    """A file's name and numbers that change when it is rewritten; zeros for a missing file."""
    with suppress(OSError):
        stat = file.stat()
        return str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns
    return str(file), 0, 0, 0


@lru_cache(maxsize=10_000)
def _steps(name: str, _inode: int, _size: int, _mtime_ns: int) -> tuple[int | None, float]:
    """A trial's steps and the share of its warm-up, which files of an older version lack."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found = json_of(Path(name))
        total, warmup = found.get("total_steps"), found.get("warmup_share")
        share = float(warmup) if isinstance(warmup, int | float) and 0 <= warmup <= 1 else 0.0
        return (total if isinstance(total, int) and total > 0 else None), share
    return None, 0.0


@lru_cache(maxsize=10_000)
def _validations(name: str, _inode: int, _size: int, _mtime_ns: int, metric: str) -> tuple[tuple[int, float], ...]:
    # A line may be half written, or damaged: the trial itself refuses to continue from it, and reports that.
    found: dict[int, float] = {}
    with suppress(OSError), Path(name).open(newline="", encoding="utf-8", errors="replace") as stream:
        header = stream.readline()
        columns = header.strip().split(",")
        if metric not in columns:
            return ()
        for row in csv.DictReader((line for line in stream if ",validation," in line), fieldnames=columns):
            with suppress(KeyError, TypeError, ValueError):
                value = float(row[metric])
                if math.isfinite(value):
                    found[int(row["step"])] = value
    return tuple(sorted(found.items()))
