"""The forward passes of a prediction, for one process or divided among several, and what they cost."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from danube_sweep.inference.deadline import Cost
from danube_sweep.inference.joint_answers import EVERY, States, Taken, Turn, joined, joint_predictions, taken_in
from danube_sweep.inference.predict import FinishedRun, Place, Trained, chunks, load
from danube_sweep.inference.predict_input import Input
from danube_sweep.inference.prediction_table import Predictions
from danube_sweep.inference.runs_in_packs import Pack, load_pack

SAMPLE = 64
"""Rows that are timed, evenly spread over the file."""
Done = Callable[[int], None]
"""Called with the rows of every forward pass, once for each run."""


@dataclass(frozen=True)
class Work:
    """Runs that `read_alike`, and the rows that they answer: all that a process of its own must know."""

    runs: list[FinishedRun]
    input: Input
    place: Place
    swap: bool
    batch_rows: int
    skip: int = 0
    """Chunks at the start of the file that are answered already."""


class Devices(Protocol):
    """The devices that answer together, each with a process of its own."""

    @property
    def count(self) -> int:
        """How many."""

    def answers(self, work: Work, done: Done) -> Iterator[list[Predictions]]:
        """The answers of each run to each chunk. Raises the errors of `load`, and TrialFailed if a process dies."""

    def costs(self, works: Sequence[Work]) -> list[Cost]:
        """The seconds of each work on one device, from a sample of its rows. Raises as `answers` does."""


def taken_of(work: Work, turn: Turn, done: Done) -> Iterator[Taken]:
    """What a turn answers of each chunk. Raises the errors of `load` and DataError for a file that has changed."""
    if len(work.runs) == 1:
        one = load(work.runs[0], work.place)
        members, states, places, kept = [one], one.states, [0], one.kept_rows()
    else:
        pack = load_pack(work.runs, work.place)
        members, states, places, kept = pack.members, pack.states, pack.places, pack.kept_rows()
    for records in chunks(work.input.records(), work.skip):
        taken = taken_in(
            members, states, records, turn, swap=work.swap, batch_rows=work.batch_rows, kept=kept, done=done
        )
        yield taken.arranged(places)


def measured(work: Work, clock: Callable[[], float] = time.monotonic) -> Cost:
    """The seconds of a work on this device, from a sample of its rows. Raises the errors of `load_pack`."""
    start = clock()
    alone, together, several = _loaded(work)
    loaded = clock()
    rows = len(work.input.ids)
    wanted = {round(number * (rows - 1) / max(min(SAMPLE, rows) - 1, 1)) for number in range(min(SAMPLE, rows))}
    sample = [record for number, record in enumerate(work.input.records()) if number in wanted]

    def seconds(some: Sequence[Trained], states: States, count: int) -> float:
        before = clock()
        joint_predictions(some, states, sample[:count], swap=False, batch_rows=work.batch_rows)
        return clock() - before

    first = several[:1]
    seconds(first, alone, 2)  # the first pass also does the set-up of later ones
    first_s = seconds(first, alone, len(sample))
    all_s = seconds(several, together, len(sample)) if len(several) > 1 else first_s
    grown = rows / len(sample)
    more_s = max(all_s - first_s, 0.0) / max(len(work.runs) - 1, 1)
    return Cost(loaded - start, first_s * grown, more_s * grown)


def _loaded(work: Work) -> tuple[States, States, list[Trained]]:
    """The states of one member, and of all of them, and the members."""
    if len(work.runs) == 1:
        trained = load(work.runs[0], work.place)
        return trained.states, trained.states, [trained]
    pack = load_pack(work.runs, work.place)
    alone = Pack(pack.members[:1], [0], pack.adapters, pack.prefix)
    return alone.states, pack.states, pack.members


@final
class ThisDevice:
    """The device of this process, alone."""

    count: Final = 1

    def answers(self, work: Work, done: Done) -> Iterator[list[Predictions]]:
        """As `Devices` has it."""
        return (joined(work.runs, [taken]) for taken in taken_of(work, EVERY, done))

    def costs(self, works: Sequence[Work]) -> list[Cost]:
        """As `Devices` has it."""
        return [measured(work) for work in works]
