"""A prediction that several devices divide: a process for each, whose answers are joined here.

Importing it is cheap.
"""

import functools
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, final

from danube_sweep.config.validate import ALL
from danube_sweep.errors import DanubeSweepError, OutOfMemory, TrialFailed
from danube_sweep.inference.predict_run import PredictWords
from danube_sweep.os_errors import as_ours
from danube_sweep.sweeping.execute.child_process import Task
from danube_sweep.sweeping.execute.messages import Failed, Job
from danube_sweep.sweeping.execute.process_outcome import kernel_kills, last_lines, signal_name
from danube_sweep.sweeping.execute.process_pool import Child, Pool
from danube_sweep.sweeping.execute.slots import Slots, check_devices, slots_to_predict
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal

if TYPE_CHECKING:
    from danube_sweep.inference.deadline import Cost
    from danube_sweep.inference.divided import Devices, Done, Work
    from danube_sweep.inference.joint_answers import Taken, Turn
    from danube_sweep.inference.prediction_table import Predictions

POLL_S: Final = 0.5


@dataclass(frozen=True)
class Rows:
    """From a process: rows of a forward pass, counted once for each run."""

    count: int


def devices_for(words: PredictWords) -> "Devices | None":
    """The devices that the words ask for; None for this process alone. Raises ConfigError for more than there are."""
    check_devices(words.devices)
    if words.devices == 1:
        return None
    slots = slots_to_predict(words.accelerator, words.devices)
    if len(slots.environments) > 1:
        return SeveralDevices(slots)
    if slots.on_cpu:
        Terminal().note(f"--devices {ALL}: no GPU here, and a CPU is one device: one process answers")
    return None


# -------------------------------------------------------------------------------------------------- in the processes


def turn_task(work: "Work", turn: "Turn", job: Job, link: Connection) -> None:
    """Sends what the turn answers of each chunk, the rows as they are done, and an error as it is."""
    from danube_sweep.inference.divided import taken_of

    _answering(job, link, lambda: taken_of(work, turn, lambda rows: link.send(Rows(rows))))


def costs_task(works: "Sequence[Work]", job: Job, link: Connection) -> None:
    """Sends the cost of each work, or an error as it is."""
    from danube_sweep.inference.divided import measured

    _answering(job, link, lambda: map(measured, works))


def _answering(job: Job, link: Connection, work: Callable[[], Iterable[Any]]) -> None:
    quiet_libraries()
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    telling(link, work)


def telling(link: Connection, work: Callable[[], Iterable[Any]]) -> None:
    """Sends each thing that `work` brings, or the error that ends it as it is."""
    try:
        for found in work():
            link.send(found)
    except Exception as error:  # an error of the operating system, a parser or a decoder; anything else is a defect
        if (ours := as_ours(error)) is None:
            raise
        link.send(ours)


# --------------------------------------------------------------------------------------------------- in this process


@dataclass
class _Process:
    """A process, and what it has sent that is not used yet."""

    name: str
    child: Child
    log: Path
    kernel_kills: int
    """Before it was started."""
    sent: "deque[Any]" = field(default_factory=deque)
    failed: Failed | None = None
    ended: bool = False


@final
class SeveralDevices:
    """The devices of some slots. A process that fails ends the others, and none outlives the prediction."""

    def __init__(self, slots: Slots) -> None:
        self._slots, self._pool = slots, Pool(on_cpu=slots.on_cpu)

    @property
    def count(self) -> int:
        """How many."""
        return len(self._slots.environments)

    def answers(self, work: "Work", done: "Done") -> "Iterator[list[Predictions]]":
        """As `Devices` has it."""
        from danube_sweep.inference.joint_answers import Turn, joined

        tasks = [functools.partial(turn_task, work, Turn(number, self.count)) for number in range(self.count)]
        with self._processes(tasks) as processes:
            while not all(one.ended for one in processes):
                _listen(processes, done)
                while all(one.sent for one in processes):
                    taken: list[Taken] = [one.sent.popleft() for one in processes]
                    yield joined(work.runs, taken)

    def costs(self, works: "Sequence[Work]") -> "list[Cost]":
        """As `Devices` has it. In a process of its own: this one touches no GPU that another is about to use."""
        with self._processes([functools.partial(costs_task, works)]) as (process,):
            while not process.ended:
                _listen([process], lambda _rows: None)
            return list(process.sent)

    @contextmanager
    def _processes(self, tasks: Sequence[Task]) -> Iterator[list[_Process]]:
        processes: list[_Process] = []
        with TemporaryDirectory(prefix="danube-sweep-") as folder:
            try:
                for slot, task in enumerate(tasks):
                    log = Path(folder) / f"{slot + 1}.log"
                    environment, threads = self._slots.environment(slot), self._slots.threads
                    job = Job(Path(folder), Path.cwd(), environment, threads=threads, log=log)
                    name = f"device {slot + 1} of {self.count}"
                    before = kernel_kills()
                    processes.append(_Process(name, self._pool.start(task, job), log, before))
                yield processes
            finally:
                running = [one for one in processes if not one.ended]
                for one in running:
                    one.child.kill()
                for one in running:
                    one.child.reap()


def _listen(processes: Sequence[_Process], done: "Done") -> None:
    """Takes what the processes have sent by now. Raises their errors, and TrialFailed for one that broke or died."""
    running = [one for one in processes if not one.ended]
    wait([place for one in running for place in one.child.places()], POLL_S)
    for one in running:
        lives = one.child.process.is_alive()  # asked first: its last message is there by then
        while (message := one.child.hear()) is not None:
            _take(one, message, done)
        if not lives:
            one.ended, code = True, one.child.reap()
            if code or one.failed is not None:
                raise _death(one, code, kernel_killed=kernel_kills() > one.kernel_kills)


def _take(one: _Process, message: Any, done: "Done") -> None:
    match message:
        case DanubeSweepError():
            raise message
        case Rows(count=count):
            done(count)
        case Failed():
            one.failed = message
        case _:
            one.sent.append(message)


def _death(one: _Process, code: int, *, kernel_killed: bool) -> TrialFailed:
    if one.failed is not None:
        failed = OutOfMemory if one.failed.state == OutOfMemory.state else TrialFailed
        return failed(f"{one.name}: {one.failed.reason}")
    if code == -signal.SIGKILL and kernel_killed:
        return OutOfMemory(f"{one.name}: the kernel ended its process: out of memory")
    if code < 0:
        return TrialFailed(f"{one.name}: its process was ended by {signal_name(-code)}")
    said = " ".join(last_lines(one.log)[-1:])
    return TrialFailed(f"{one.name}: its process exited with code {code}" + (f" ({said})" if said else ""))
