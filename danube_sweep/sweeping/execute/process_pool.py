"""Processes for trials, forked from a warm parent that has imported the stack and touched no GPU."""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, final

from danube_sweep.errors import RankLost, SweepFailed
from danube_sweep.planner.present_gpu import has_gpu_files
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.child_process import Task
from danube_sweep.sweeping.execute.messages import Answer, Dismissal, Job, Message
from danube_sweep.training.ranks import Meeting
from danube_sweep.training.signals import SIGNALS

WARM = [
    "danube_sweep.sweeping.execute.warm_imports",
    "pyarrow.parquet",
    "sklearn.model_selection",
    "torchmetrics.functional.classification",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mistral.modeling_mistral",
    "danube_sweep.sweeping.execute.warm_tables",
]
"""The imports of the parent of all trials. PEFT imports bitsandbytes, which initialises CUDA, so neither is here.

The last one freezes what is imported by then."""
GONE_WITHIN_S = 5.0
ENDS_WITHIN_S = 10.0
"""How long the leading rank has, once another has died, to notice and to end by itself."""
STARTS = 5
"""How often a child is started before a warm parent that keeps dying counts as an error."""


@final
class Child:
    """A running process of a job, and the link to it; or several, of which it is the leading rank.

    They live and die as one: the leader's end is the end of all, and nobody outlives `reap`.
    """

    def __init__(self, process: Any, link: Connection) -> None:
        self.process, self.link = process, link
        self.followers: list[Child] = []
        self._lost_s: float | None = None
        self._lost_code: int | None = None
        """When a rank was first seen to have died before the leader, and how."""
        self.meeting: Path | None = None
        """The folder in which the ranks have met; it goes with them."""
        self.started_s = self.heard_s = time.monotonic()
        self.stop_asked_s: float | None = None
        self.silent = False
        """Whether it has closed its end of the link: nothing will be heard any more."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s

    def places(self) -> list[Any]:
        """The handles to wait for: its next message, and its end."""
        followers = [place for one in self.followers if one.process.is_alive() for place in one.places()]
        return [*([] if self.silent else [self.link]), self.process.sentinel, *followers]

    def hear(self) -> Message | None:
        """The next message, or None if there is none now; of a rank that follows, why it has failed."""
        for one in (self, *self.followers):
            if (message := one._hear()) is not None:
                return message
        return None

    def _hear(self) -> Message | None:
        try:
            if not self.silent and self.link.poll():
                message: Message = self.link.recv()
                self.heard_s = time.monotonic()
                return message
        except (EOFError, OSError):  # it closed the link, or died in the middle of a word
            self.silent = True
        return None

    def tell(self, what: Answer | Dismissal) -> None:
        """Answers a message, or dismisses a trial, if anybody is left to hear it."""
        with suppress(OSError):
            self.link.send(what)

    def watch_ranks(self) -> None:
        """Ends all when one of the ranks has died and the leader goes on, or waits for it, all the same."""
        codes = [one.process.exitcode for one in self.followers]
        if self._lost_code is None:
            self._lost_code = next((int(code) for code in codes if code not in (None, 0, RankLost.exit_code)), None)
        if self._lost_s is None and any(codes):
            self._lost_s = time.monotonic()
        if self._waited_for_the_dead():
            self.kill()

    def _waited_for_the_dead(self) -> bool:
        # As long as it might, so that it was ended here.
        return self._lost_s is not None and time.monotonic() - self._lost_s > ENDS_WITHIN_S

    def ask_to_stop(self) -> None:
        """Asks for a checkpoint and an end, once."""
        if self.stop_asked_s is None:
            self.stop_asked_s = time.monotonic()
            self._send(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process and all processes that it has started."""
        self._kill_own()
        for one in self.followers:
            one.kill()

    def reap(self) -> int:
        """Waits for the end and returns the exit code, negative for a signal's number.

        Of several ranks it is that of the one that died first, if the leader only ended for that.
        """
        code = self._ended()
        if code == RankLost.exit_code:
            for one in self.followers:
                one.process.join(ENDS_WITHIN_S)
            self.watch_ranks()
        if code == RankLost.exit_code or self._waited_for_the_dead():
            code = code if self._lost_code is None else self._lost_code
        for one in self.followers:
            one.kill()
            one.reap()
        if self.meeting is not None:
            shutil.rmtree(self.meeting, ignore_errors=True)
        return code

    def _ended(self) -> int:
        self.process.join()
        code = int(self.process.exitcode)
        if code == 255 and self._lives():  # the warm parent died, and with it the child's exit code
            code = -int(signal.SIGTERM)  # as if asked to stop: the trial continues from its checkpoint
        self._kill_own()  # processes that the child left behind: its group outlives it
        self._wait_until_gone()
        self.link.close()
        return code

    def _kill_own(self) -> None:
        self._send(os.killpg, signal.SIGKILL)
        self._send(os.kill, signal.SIGKILL)  # it may not have come as far as a group of its own

    def _send(self, to: Callable[[int, int], None], number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            to(self.process.pid, number)

    def _lives(self) -> bool:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, 0)
            return True
        return False

    def _wait_until_gone(self) -> None:
        end = time.monotonic() + GONE_WITHIN_S
        while self._lives() and time.monotonic() < end:
            time.sleep(0.01)


@final
class Pool:
    """Starts children; with `on_cpu` the parent imports all that a trial needs, if there is no GPU to be touched by it.

    One parent serves all pools of a process, with the imports of the first.
    """

    def __init__(self, *, on_cpu: bool) -> None:
        self._context = multiprocessing.get_context("forkserver")
        more = ["danube_sweep.training.run"] if on_cpu and not has_gpu_files() else []
        self._context.set_forkserver_preload([*WARM[:-1], *more, WARM[-1]])

    def start(self, task: Task, job: Job) -> Child:
        """A child that runs `task`, with others that run `follow_task` if the job has several ranks.

        Raises SweepFailed when one warm parent after the other dies before it has started it, or nothing can be forked.
        """
        if len(job.ranks) < 2:
            return self._start_one(task, job)
        meeting = Path(tempfile.mkdtemp(prefix="danube-sweep-"))
        jobs = [
            replace(job, environment=job.environment | own, meeting=Meeting(meeting / "ranks", rank, len(job.ranks)))
            for rank, own in enumerate(job.ranks)
        ]
        try:
            leader = self._start_one(task, jobs[0])
        except BaseException:
            shutil.rmtree(meeting, ignore_errors=True)
            raise
        leader.meeting = meeting
        try:
            for one in jobs[1:]:
                leader.followers.append(self._start_one(child_process.follow_task, one))
        except BaseException:  # nobody else knows of those that have started, and they would wait for the others
            leader.kill()
            leader.reap()
            raise
        return leader

    def _start_one(self, task: Task, job: Job) -> Child:
        for _ in range(STARTS):
            try:
                return self._start(task, job)
            except (EOFError, OSError) as error:
                problem = error
                time.sleep(0.1)  # a process that was killed takes a moment to be gone
        raise SweepFailed(f"no process for a trial can be started ({type(problem).__name__}: {problem})") from problem

    def _start(self, task: Task, job: Job) -> Child:
        _warm_up()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=child_process.child_main, args=(task, job, theirs))
        with _without_the_script():
            process.start()
        theirs.close()
        return Child(process, ours)


@contextmanager
def _without_the_script() -> Iterator[None]:
    # multiprocessing would run the current script in a child to find the functions that it was sent. None of ours is in
    # there, and a script that calls ds.train outside of functions would train again.
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _warm_up() -> None:
    # A Ctrl-C or a TERM for the whole process group is the sweep's to answer. Its warm parent, which would die of it
    # while it imports, never sees one; a child sees it as soon as it has a session of its own (`child_main`).
    resource_tracker.ensure_running()  # by itself it would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
