"""One task in a child of the warm parent, for a process that only asks and shows: a notebook, a script, a server.

It may have threads, an event loop and a GPU in use: it is never forked, and imports no torch for this.
"""

import codecs
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, Final, final

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.errors import DanubeSweepError, Interrupted, OutOfMemory, TrialFailed
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute.child_process import Task
from danube_sweep.sweeping.execute.messages import Failed, Job
from danube_sweep.sweeping.execute.process_outcome import kernel_kills, outcome
from danube_sweep.sweeping.execute.process_pool import Child, Pool
from danube_sweep.training.signals import StopRequest

POLL_S: Final = 0.5
_DRAWN: Final = ("FORCE_COLOR", "CLICOLOR_FORCE")
"""Set in every notebook. With them, rich draws moving bars, but lines are printed here."""
_ENDED_BY: Final = (-signal.SIGTERM, 128 + signal.SIGTERM)


def run_in_child(task: Task, job: Job, *, on_cpu: bool) -> Any:
    """Returns the value that the task sends, or None. Its output goes to sys.stdout as it comes.

    A first Ctrl-C asks it for a checkpoint and an end, a second one ends it at once. Raises the DanubeSweepError that
    it sends, Interrupted for a child that was stopped, and TrialFailed for one that broke or died before it had the
    result of a finished run.
    """
    before, had_result = kernel_kills(), RunFolder(job.path).result.is_file()
    environment = {name: value for name, value in job.environment.items() if name not in _DRAWN}
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with StopRequest(silent=True) as stop, ours, theirs:
        child = Pool(on_cpu=on_cpu).start(task, replace(job, output=theirs, environment=environment))
        theirs.close()
        try:
            told = _attend(child, _Echo(ours), stop)
        finally:
            child.kill()
            code = child.reap()
    if isinstance(told, Interrupted) and stop.signal_number is not None:
        raise Interrupted(str(told), stop.signal_number)
    if isinstance(told, DanubeSweepError):
        raise told
    if code in _ENDED_BY and stop.signal_number is not None:
        raise Interrupted(f"while it began; {job.path} is as it was", stop.signal_number)
    if code or isinstance(told, Failed):
        folder = None if had_result else RunFolder(job.path)  # an older result says nothing of this process
        if folder is not None and folder.result_fields().get("state") in COMPLETE:
            return None if isinstance(told, Failed) else told  # it died on its way out, with its work done
        raise _death(job, folder, code, told, kernel_killed=kernel_kills() > before)
    return told


def _death(job: Job, folder: RunFolder | None, code: int, told: Failed | None, *, kernel_killed: bool) -> TrialFailed:
    state, reason = outcome(folder, code, told, kernel_killed=kernel_killed)
    failed = OutOfMemory if state == OutOfMemory.state else TrialFailed
    return failed(f"{job.path}: {state}: {reason}")


def _attend(child: Child, echo: "_Echo", stop: StopRequest) -> Any:
    """Shows the child's output and passes on a request to stop. Returns its last message."""
    told: Any = None
    while True:
        wait([*child.places(), *echo.places()], POLL_S)
        if stop():
            child.ask_to_stop()
        child.watch_ranks()
        lives = child.process.is_alive()  # asked first: its last output and message are there by then
        echo.pass_on()
        while (message := child.hear()) is not None:
            if not isinstance(told, DanubeSweepError):  # why it ends: what other ranks send after that only follows
                told = message
        if not lives:
            return told


@final
class _Echo:
    """Writes the child's output to the current sys.stdout, which a notebook has replaced by its own."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._open = pipe, True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.set_blocking(pipe.fileno(), False)

    def places(self) -> list[Connection]:
        """The handles to wait for. Empty once no process can write any more."""
        return [self._pipe] if self._open else []

    def pass_on(self) -> None:
        """Prints all that is there."""
        while self._open:
            try:
                data = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                break
            self._open = bool(data)
            sys.stdout.write(self._decoder.decode(data, final=not data))
        sys.stdout.flush()
