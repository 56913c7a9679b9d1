"""The code in an actor of Ray: `danube-sweep resume` on the sweep's folder. Everything else is in the folder."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from danube_sweep.sweeping.cluster.cluster_worker import OTHERS, what_is_missing

_TELL_ME_WHEN_THE_PARENT_DIES: Final = 1  # PR_SET_PDEATHSIG
_SAID: Final = "danube-sweep: error: "


class RayWorker:
    """Trains the trials of the sweep in `sweep` until none is left. Ray makes it again elsewhere when its node dies."""

    def __init__(self, sweep: str, cwd: str, settings: list[str]) -> None:
        self._sweep, self._cwd, self._settings = Path(sweep), cwd, settings
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False

    def train(self) -> tuple[int, str]:
        """The exit code of `resume`, and the last error that it told."""
        if (missing := what_is_missing(self._sweep, None)) is not None:
            return 2, missing
        if self._stopped:
            return 128 + signal.SIGTERM, ""
        environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
        command = [sys.executable, "-m", "danube_sweep", "resume", "--worker", str(self._sweep), *self._settings]
        libc: Any = ctypes.CDLL(None)

        def follow() -> None:  # its trials checkpoint when the actor is killed
            libc.prctl(_TELL_ME_WHEN_THE_PARENT_DIES, signal.SIGTERM)

        said = ""
        with subprocess.Popen(
            command, cwd=self._cwd, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=follow
        ) as self._child:
            assert self._child.stderr is not None
            for line in self._child.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                said = line.strip().removeprefix(_SAID) if line.startswith(_SAID) else said
        return self._child.returncode, said

    def answer(self) -> bool:
        """Whether there is a worker that runs."""
        return True

    def stop(self) -> None:
        """Has the trials checkpoint; `train` then returns."""
        self._stopped = True
        if self._child is not None:
            self._child.terminate()
