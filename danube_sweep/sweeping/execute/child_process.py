"""A trial or a pack in a process of its own: the child's work, and its messages to the parent."""

import faulthandler
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from danube_sweep.config.schema.states import Verdict
from danube_sweep.errors import (
    BusyError,
    DanubeSweepError,
    DiskError,
    Dismissed,
    Interrupted,
    PackOutOfMemory,
    Paused,
)
from danube_sweep.storage.files import append_only
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute.messages import (
    Alive,
    Answer,
    Asked,
    Dismissal,
    Failed,
    Job,
    Left,
    PackTrial,
    Started,
    Stepped,
    Told,
    Validated,
)
from danube_sweep.training.signals import SIGNALS, StopRequest

if TYPE_CHECKING:
    from danube_sweep.training.setup import Entrant

LOCK_WAIT_S = 20.0
"""How long the folder of a trial whose process is just dying may stay locked."""

ALIVE_EVERY_S = 1.0

Task = Callable[[Job, Connection], None]


def child_main(task: Task, job: Job, link: Connection) -> None:
    """Runs `task` under the terms of a slot: own session, own log, and no life after the process that asked for it."""
    os.setsid()  # the terminal's Ctrl-C reaches the sweep alone, which then asks for a stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.chdir(job.working_directory)
    os.environ.clear()
    os.environ.update(job.environment)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as the planner counts GPUs
    _die_with_the_sweep()
    _redirect(job)
    faulthandler.enable(all_threads=False)
    try:
        task(job, link)
    except DanubeSweepError as error:
        print(error, file=sys.stderr)
        if not isinstance(error, Interrupted | Paused):
            link.send(_failed(error))
        sys.exit(error.exit_code)
    except Exception as error:
        link.send(_failed(error))
        raise


def train_task(job: Job, link: Connection) -> None:
    """The task of every sweep: the same run as from the command line."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    import torch

    from danube_sweep.training.ranks import joined
    from danube_sweep.training.run import run_pack, run_trial

    trials, line = job.pack, Line(link)
    if not trials:
        assert job.config is not None
        trials = (PackTrial(job.path, job.config, note=""),)
    entrants = [line.entrant(trial) for trial in trials]
    if entrants[0].config.device.threads is None and job.threads is not None:
        torch.set_num_threads(job.threads)
    with StopRequest(patient=True) as stop, joined(job.meeting) as ranks:
        if job.pack:
            run_pack(entrants, line, stop=stop, lock_wait_s=LOCK_WAIT_S, ranks=ranks)
            return
        (one,) = entrants
        run_trial(one.config, one.path, one.terminal, stop=stop, judge=one.judge, lock_wait_s=LOCK_WAIT_S, ranks=ranks)


def follow_task(job: Job, _link: Connection) -> None:
    """The task of every rank of a job except the first: its share of the first rank's training."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.training.follow import follow
    from danube_sweep.training.ranks import joined

    with StopRequest(patient=True, silent=True) as stop, joined(job.meeting) as ranks:
        follow(ranks, stop)


@final
class Line:
    """The `Door` of `run_pack` in a child: it passes questions and reports to the parent."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._dismissed: dict[str, str] = {}

    def entrant(self, trial: PackTrial) -> "Entrant":
        """The trial, ready to train. Its log has a line on the pack."""
        from danube_sweep.training.setup import Entrant

        def judge(number: int) -> Verdict:
            self._link.send(Validated(trial.name, number))
            answer = self._answer()
            return answer if isinstance(answer, Verdict) else Verdict.go_on

        # Test parts and test splits are scored once, for the winner.
        asked = trial.config.trainer
        config = replace(trial.config, trainer=replace(asked, score_test=False, benchmark_test=not asked.benchmark))
        if trial.note:
            _record(trial.path, trial.note)
        return Entrant(config, trial.path, Relay(self._link, trial.name), judge)

    def next(self) -> "Entrant | None":
        self._link.send(Asked())
        answer = self._answer()
        return self.entrant(answer) if isinstance(answer, PackTrial) else None

    def dismisses(self, entrant: "Entrant") -> str | None:
        while self._link.poll():
            self._keep(self._link.recv())
        return self._dismissed.get(entrant.path.name)

    def left(self, entrant: "Entrant", error: BaseException | None) -> None:
        code = 0 if error is None else getattr(error, "exit_code", 1)
        failed = None if error is None or isinstance(error, Interrupted | Dismissed | Paused) else _failed(error)
        if error is not None:
            _record(entrant.path, str(error))
        self._link.send(Left(entrant.path.name, code, failed))

    def _answer(self) -> Answer:
        while True:
            said: Answer | Dismissal = self._link.recv()
            if not isinstance(said, Dismissal):
                return said
            self._keep(said)

    def _keep(self, said: Dismissal) -> None:
        self._dismissed[said.trial] = said.reason


def _record(path: Path, text: str) -> None:
    from danube_sweep.terminal.screen import Log

    with suppress(DiskError):  # how it ended is on record even so
        Log(RunFolder(path).log).write(text)


def score_task(job: Job, link: Connection) -> None:
    """Sends the metrics of a finished trial on its test part."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.inference.score_test import score_test

    assert job.config is not None
    link.send(score_test(job.path, job.config.device))


def benchmark_task(job: Job, link: Connection) -> None:
    """Sends what a finished trial and its untrained backbone score on the tasks of trainer.benchmark."""
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.inference.benchmarked_run import score_benchmark

    assert job.config is not None
    link.send(score_benchmark(job.path, job.config))


def baseline_task(job: Job, link: Connection) -> None:
    """Trains the baselines of the job's config into the folder of its path, named after the split. Sends None."""
    from danube_sweep.baseline.write_baselines import write_baselines

    assert job.config is not None
    write_baselines(job.path.parent, job.path.name, job.config)
    link.send(None)


def publish_task(job: Job, link: Connection) -> None:
    """Sends W&B the end of a trial that was paused and is pruned now. Sends the parent None."""
    from danube_sweep.training.run import publish_result

    assert job.config is not None
    publish_result(job.config, RunFolder(job.path))
    link.send(None)


def count_gpus_task(job: Job, link: Connection) -> None:
    """Sends the number of GPUs that torch sees."""
    import torch

    link.send(torch.cuda.device_count())


@final
class Relay:
    """The screen of a trial that has no terminal: its lines go to log.txt, its progress over the link."""

    def __init__(self, link: Connection, trial: str) -> None:
        from rich.console import Console

        from danube_sweep.terminal.screen import Terminal

        self._link, self._trial = link, trial
        self._said_s = time.monotonic()
        self._log = Terminal(Console(file=open(os.devnull, "w")), plain=True)  # noqa: SIM115 (lives as long as the process)

    def start(self, name: str, total_steps: int, done_steps: int = 0) -> None:
        self._log.start(name, total_steps, done_steps)
        self._link.send(Started(self._trial, total_steps, done_steps))

    def update(self, name: str, step: int, *, loss: float, tokens_per_s: float) -> None:
        self._log.update(name, step, loss=loss, tokens_per_s=tokens_per_s)
        self._link.send(Stepped(self._trial, step, loss, tokens_per_s))

    def alive(self) -> None:
        if time.monotonic() - self._said_s > ALIVE_EVERY_S:
            self._said_s = time.monotonic()
            self._link.send(Alive())

    def note(self, text: str) -> None:
        self._log.note(text)

    def tell(self, about: str, lines: Sequence[str]) -> None:
        self._log.tell(about, lines)
        self._link.send(Told(about, tuple(lines)))

    def log_to(self, path: Path) -> None:
        self._log.log_to(path)

    def record(self, text: str) -> None:
        self._log.record(text)


def _failed(error: BaseException) -> Failed:
    from danube_sweep.config.schema.states import State
    from danube_sweep.training.failure import failure

    if isinstance(error, BusyError):  # the process that trains it reports its end
        return Failed(State.preempted.value, str(error))
    if isinstance(error, PackOutOfMemory):
        return Failed(State.oom.value, str(error))
    told = failure(error)  # nothing for a user's mistake
    refused = State.failed if isinstance(error, DiskError) else State.invalid
    return Failed(told.get("state", refused.value), told.get("error", str(error)))


def _redirect(job: Job) -> None:
    # All output goes into the trial's log or to the caller that asked for it, also that of C code and of a dying
    # interpreter.
    if job.output is not None:
        handle = os.dup(job.output.fileno())
        job.output.close()
    else:
        handle = append_only(job.log or RunFolder(job.path).log)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


def _die_with_the_sweep() -> None:
    # multiprocessing gives each child a pipe whose other end only the sweep's process holds. When it closes, the kernel
    # sends SIGKILL to the child, even if that hangs in C code, and to the processes that the child has started. Where
    # there is no such signal, a thread does the same.
    parent: Any = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpgid(0))
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_kill_after, args=(sentinel,), daemon=True).start()


def _kill_after(sentinel: int) -> None:
    wait([sentinel])
    os.killpg(os.getpgid(0), signal.SIGKILL)
