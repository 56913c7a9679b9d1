"""A function in a process of its own: out of memory, a kill or a timeout ends that process alone."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from danube_sweep.config.schema.states import State
from danube_sweep.errors import DanubeSweepError

_ONE_WAIT_S: Final = 86_400.0


@dataclass(frozen=True)
class Ended:
    """How the process ended: with a value, or in a state and for a reason."""

    value: Any = None
    state: str = State.finished.value
    error: str | None = None


def isolated(work: Callable[[], Any], timeout_s: float | None = None) -> Ended:
    """Runs `work` in a fork of this process, which must not have touched a GPU; what it returns must be plain data.

    Raises the DanubeSweepError that `work` raises.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, theirs))
    child.start()
    theirs.close()
    try:
        if not _answers(ours, timeout_s):
            return Ended(state=State.timeout.value, error=f"it took more than {timeout_s:.6g} s")
        return _ended(ours, child)
    finally:
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
        child.join()


def _answers(answer: Connection, timeout_s: float | None) -> bool:
    """Whether there is an answer in time. A single wait cannot be longer than some weeks."""
    if timeout_s is None:
        return answer.poll(None)
    end_s = time.monotonic() + timeout_s
    while not answer.poll(max(0.0, min(end_s - time.monotonic(), _ONE_WAIT_S))):
        if time.monotonic() >= end_s:
            return False
    return True


def _child(work: Callable[[], Any], answer: Connection) -> None:
    try:
        answer.send(("value", work()))
    except DanubeSweepError as error:
        answer.send(("error", error))
    except KeyboardInterrupt:
        os._exit(130)


def _ended(answer: Connection, child: multiprocessing.process.BaseProcess) -> Ended:
    try:
        kind, value = answer.recv()
    except EOFError:
        child.join()
        code = child.exitcode or 0
        if code == 130:
            raise KeyboardInterrupt from None
        if code == -signal.SIGKILL:
            return Ended(state=State.killed.value, error="its process was killed, often for want of host memory")
        return Ended(state=State.failed.value, error=f"its process ended with exit code {code}")
    if kind == "error":
        raise value
    child.join()
    return Ended(value)
