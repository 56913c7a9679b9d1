"""Processes for trials, forked from a warm parent that has imported the stack and touched no GPU."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, final

from danube_sweep.sweep import child
from danube_sweep.sweep.child import Job, Task

WARM = [
    "danube_sweep.sweep.warm",
    "pyarrow.parquet",
    "torchmetrics.functional.classification",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mistral.modeling_mistral",
]
"""What the parent of all trials imports; PEFT imports bitsandbytes, and that initialises CUDA, so neither is here."""
GONE_WITHIN_S = 5.0


@final
class Child:
    """A running process of a job, and the link to it."""

    def __init__(self, process: Any, link: Connection) -> None:
        self.process, self.link = process, link
        self.started_s = self.heard_s = time.monotonic()
        self.stop_asked_s: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s

    def ask_to_stop(self) -> None:
        """Asks for a checkpoint and an end, once."""
        if self.stop_asked_s is None:
            self.stop_asked_s = time.monotonic()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process and whatever it has started."""
        self._signal(signal.SIGKILL, group=True)

    def reap(self) -> int:
        """Waits for the end and returns the exit code, negative for a signal's number."""
        self.process.join()
        code = int(self.process.exitcode)
        if code == 255 and self._lives():  # the warm parent died, and with it the child's exit code
            code = -int(signal.SIGKILL)
        self._signal(signal.SIGKILL, group=True)  # what the child has left behind
        self._wait_until_gone()
        self.link.close()
        return code

    def _signal(self, number: signal.Signals, *, group: bool = False) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if group and os.getpgid(self.process.pid) != self.process.pid:
                group = False  # it has not come as far as its own session
            (os.killpg if group else os.kill)(self.process.pid, number)

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
    """Starts children; with `on_cpu` the parent imports all that a trial needs."""

    def __init__(self, *, on_cpu: bool) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*WARM, "danube_sweep.run"] if on_cpu else WARM)

    def start(self, task: Task, job: Job) -> Child:
        """A child that runs `task`."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=child.main, args=(task, job, theirs))
        process.start()
        theirs.close()
        return Child(process, ours)
