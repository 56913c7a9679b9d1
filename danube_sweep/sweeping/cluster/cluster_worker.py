"""A job on the cluster: `danube-sweep resume` on the sweep's folder, stopped and requeued on the scheduler's signal.

submitit pickles a `Worker`, which holds paths and settings. A job loads only the imports at the top of this file for
it.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

SEEN_S: Final = 30.0
"""How long a network file system may take to show a folder that another machine has just made."""
MARGIN_S: Final = 15
"""Of the time before the kill, left for the requeueing itself."""
OTHERS: Final = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NPROCS")
"""By these Lightning takes a trial for one task of a distributed run."""


@dataclass
class Worker:
    """A call trains the trials of `sweep` until none is left, and returns the exit code of `resume`."""

    sweep: Path
    trial: str | None
    """A trial's folder that must be there, so that an empty or another folder of the same path is noticed."""
    cwd: Path
    settings: list[str]
    stop_s: int
    """Seconds from the scheduler's signal to the kill."""
    child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    reported: ClassVar[str] = ".code"

    def __call__(self) -> int:
        import submitit

        job = submitit.JobEnvironment()
        report = Path(job.paths.folder) / f"{job.job_id}_{job.global_rank}{self.reported}"
        report.unlink(missing_ok=True)
        code = self._train(leads=job.global_rank == 0)
        report.write_text(f"{code}\n", encoding="utf-8")
        return code

    def checkpoint(self) -> Any:
        """On the signal before a kill: the trials checkpoint, and the same worker is queued again."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(replace(self, child=None))

    def _train(self, *, leads: bool) -> int:
        if (missing := what_is_missing(self.sweep, self.trial)) is not None:
            print(f"danube-sweep: error: {missing}", file=sys.stderr, flush=True)
            return 2
        environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
        command = [sys.executable, "-m", "danube_sweep", "resume", "--worker", str(self.sweep), *self.settings]
        try:
            # The scheduler signals every process of a job. This process tells those that train.
            before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            self.child = subprocess.Popen(command, cwd=self.cwd, env=environment)
            signal.signal(signal.SIGUSR2, before if leads else lambda *_: self._stop())
            self._wait(None)
            return self.child.wait()
        finally:
            self._stop()

    def _stop(self) -> None:
        if self.child is not None and not self._wait(0):
            self.child.send_signal(signal.SIGTERM)
            self._wait(max(1, self.stop_s - MARGIN_S))

    def _wait(self, most_s: float | None) -> bool:
        # Popen.wait holds a lock that a signal's handler in the same thread would never get.
        assert self.child is not None
        try:
            handle = os.pidfd_open(self.child.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], most_s)[0])
        finally:
            os.close(handle)


def what_is_missing(sweep: Path, trial: str | None) -> str | None:
    """A line for the user if this machine does not see the sweep, nor its trial `trial`, after a while."""
    until_s = time.monotonic() + SEEN_S
    needed = sweep / "sweep.json" if trial is None else sweep / trial / "trial.json"
    while not (needed.is_file() and (sweep / "sweep.json").is_file()):
        if time.monotonic() > until_s:
            return (
                f"hydra.sweep.dir: {sweep} of the submitting machine is not seen on {socket.gethostname()}; give a "
                "folder on a file system that all nodes share"
            )
        time.sleep(0.5)
    return None
