"""The time left that a sweep printed, against the time that it then took, from the attempts in its folder.

    python benchmarks/time_left.py SWEEP [SWEEP ...]

Each end of a trial is replayed with the rule that `danube-sweep` prints by, and with the mean of the ended trials times
those that are open (a trial of a pack counted by its share), which knows nothing of the running ones. Only ends after a
third of the way count for the last columns: the largest and the median error, as a share of the whole sweep.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import attempts
from danube_sweep.sweeping.execute.pace import Pace

THIRD = 1 / 3


@dataclass(frozen=True)
class Ended:
    """An attempt of a trial; times in seconds since the epoch."""

    trial: str
    began_s: float
    seconds: float
    place: tuple[str | None, int]
    """Of the process: its pack and its slot."""
    paused: bool

    @property
    def ended_s(self) -> float:
        return self.began_s + self.seconds


@dataclass(frozen=True)
class Reading:
    """What was said at the end of a trial; `said_s` and `mean_s` are None where nothing was."""

    share: float
    """Of the whole way."""
    left_s: float
    """What it then took."""
    said_s: float | None
    mean_s: float | None


def attempts_of(sweep: Path) -> list[Ended]:
    """All attempts, by their ends."""
    found = []
    for file in sweep.glob("*/attempts.jsonl"):
        for one in attempts(RunFolder(file.parent)):
            began = datetime.fromisoformat(one.started).timestamp()
            place = (one.pack, one.slot or 0)
            found.append(Ended(file.parent.name, began, one.seconds, place, one.state == "paused"))
    return sorted(found, key=lambda one: one.ended_s)


def readings(ended: Sequence[Ended], slots: int) -> Iterator[Reading]:
    """A reading for each end but the last."""
    first, last = min(one.began_s for one in ended), ended[-1].ended_s
    whole_s, trials = last - first, {one.trial for one in ended}
    pace, shares, over = Pace(slots), list[float](), set[str]()
    for one in ended[:-1]:
        places = places_of(one, ended)
        pace.add(one.trial, ended_s=one.ended_s, seconds=one.seconds, places=places, paused=one.paused)
        shares.append(one.seconds / places)
        over = over if one.paused else {*over, one.trial}
        still_open = len(trials - over)
        mean_s = still_open * statistics.fmean(shares) / slots
        said_s = pace.left_s(still_open, one.ended_s)
        yield Reading((one.ended_s - first) / whole_s, last - one.ended_s, said_s, mean_s)


def places_of(one: Ended, ended: Sequence[Ended]) -> int:
    """The most trials that its process had at a time while it was there."""
    if one.place[0] is None:
        return 1
    beside = [other for other in ended if other.place == one.place]
    moments = [other.began_s for other in beside if one.began_s <= other.began_s < one.ended_s]
    return max(sum(other.began_s <= moment < other.ended_s for other in beside) for moment in moments)


def errors(found: Sequence[Reading], whole_s: float, name: str) -> list[float]:
    """Of the readings after a third of the way that said something, as shares of the whole."""
    said = [(getattr(one, name), one.left_s) for one in found if one.share >= THIRD]
    return [abs(value - left_s) / whole_s for value, left_s in said if value is not None]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="+")
    options = parser.parse_args(words)
    print("| sweep | trials | seconds | at | took | said | mean of the ended |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    totals = []
    for sweep in options.sweeps:
        ended = attempts_of(sweep)
        if not ended:
            parser.error(f"{sweep}: no attempts.jsonl of a trial in it; give a sweep's folder")
        slots = len({one.place[1] for one in ended})
        found = list(readings(ended, slots))
        whole_s = ended[-1].ended_s - min(one.began_s for one in ended)
        count = len({one.trial for one in ended})
        for one in found:
            said = "" if one.said_s is None else f"{one.said_s:.0f}"
            values = f"{one.share:.0%} | {one.left_s:.0f} | {said} | {one.mean_s:.0f}"
            print(f"| {sweep.name} | {count} | {whole_s:.0f} | {values} |")
        totals.append((sweep.name, *(errors(found, whole_s, name) for name in ("said_s", "mean_s"))))
    print("\nlargest and median error after a third of the way, as a share of the sweep:")
    for name, said_errors, mean_errors in totals:
        print(f"{name}: said {_two(said_errors)}, mean of the ended {_two(mean_errors)}")


def _two(some: Sequence[float]) -> str:
    return f"{max(some):.0%} and {statistics.median(some):.0%} of {len(some)}" if some else "nothing"


if __name__ == "__main__":
    main()
