"""Validation losses by trial and step, and when each was known: of a sweep, and of the baseline in any order."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

CLOCKS = ("wall", "cpu")
"""Seconds of the wall, or of the processor in all processes of a side."""


@dataclass
class Reading:
    """`seconds` are counted from the command's start."""

    losses: dict[tuple[str, int], float] = field(default_factory=dict)
    seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    total: float = 0.0

    def add(self, trial: str, step: int, loss: float, seconds: float) -> None:
        self.losses[trial, step], self.seconds[trial, step] = loss, seconds

    def first(self, limit: float) -> float | None:
        """Seconds until a loss is at most `limit`; None if none is."""
        there = [self.seconds[key] for key, loss in self.losses.items() if loss <= limit]
        return min(there, default=None)


@dataclass
class Course:
    """A trial of the baseline. Seconds are counted from its start.

    `test` has the losses of the test rows at its best step, if no trial before it was better.
    """

    losses: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    total: float | None = None
    test: list[float] | None = None

    @property
    def best(self) -> float:
        return min(self.losses.values())


@final
class Log:
    """What the baseline has written so far: lines of JSON, an event each.

    A process begins with `launch`, and each trial has `start`, a `validation` per reading, `end` and `test`. Every
    event has the time of the wall and the processor seconds of its process. A trial without `test` was interrupted;
    it is trained again, and what it left is passed over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def append(self, event: str, wall: float, cpu: float, **fields: Any) -> None:
        """Writes an event, on a line of its own even after one that was cut short."""
        whole = not self._file.is_file() or self._file.read_bytes()[-1:] in (b"", b"\n")
        with self._file.open("a") as stream:
            stream.write(
                ("" if whole else "\n") + json.dumps({"event": event, "wall": wall, "cpu": cpu, **fields}) + "\n"
            )

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self._file.read_text().splitlines() if self._file.is_file() else ():
            try:
                yield json.loads(line)
            except ValueError:  # cut short by a kill
                continue

    def start_up(self, clock: str) -> float:
        """Seconds from the first process that came to a trial until that trial's start."""
        launched = math.nan
        for row in self.events():
            if row["event"] == "launch":
                launched = row[clock]
            elif row["event"] == "start":
                return float(row[clock] - launched)
        raise SystemExit(f"{self._file}: no trial was started")

    def courses(self, clock: str) -> dict[str, Course]:
        """The trials that have come to their end, in their order."""
        begun: dict[str, tuple[float, Course]] = {}
        for row in self.events():
            if row["event"] == "launch":
                continue
            if row["event"] == "start":
                begun.pop(row["trial"], None)
                begun[row["trial"]] = row[clock], Course()
            start, course = begun[row["trial"]]
            if row["event"] == "validation":
                course.losses[row["step"]], course.seconds[row["step"]] = row["log_loss"], row[clock] - start
            elif row["event"] == "end":
                course.total = row[clock] - start
            elif row["event"] == "test":
                course.test = row["losses"]
        return {name: course for name, (_, course) in begun.items() if course.test is not None}


def replay(start_up: float, courses: Mapping[str, Course], order: Sequence[str]) -> Reading:
    """The sweep, had one process trained its trials in this order."""
    reading = Reading(total=start_up)
    for name in order:
        course = courses[name]
        for step, loss in course.losses.items():
            reading.add(name, step, loss, reading.total + course.seconds[step])
        assert course.total is not None
        reading.total += course.total
    return reading


def ratios(theirs: Sequence[Reading], ours: Sequence[Reading], limit: float) -> list[float]:
    """Of all pairs of the two: the seconds of theirs to a loss of at most `limit`, over ours.

    Where only ours has such a loss, theirs counts with its whole sweep, a lower bound of the ratio. Where only theirs
    has it, the ratio is 0. Where neither has it, the whole sweeps are compared.
    """

    def ratio(one: Reading, own: Reading) -> float:
        reached, at = one.first(limit), own.first(limit)
        if at is None and reached is not None:
            return 0.0
        return (one.total if reached is None else reached) / (own.total if at is None else at)

    return [ratio(one, own) for one in theirs for own in ours]
