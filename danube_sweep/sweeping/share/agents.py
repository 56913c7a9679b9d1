"""`danube-sweep agent`: several stock W&B agents on this machine, whose trials share one executor."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.errors import ConfigError, Interrupted, SweepFailed
from danube_sweep.storage.folder_names import SWEEPS
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.sweeping.share.serve import settings_of
from danube_sweep.sweeping.share.shared_trial import SHARE

_SWEEP = re.compile(r"([\w .-]+/){0,2}[\w-]+")
MOST = 64
"""Agents of one command; each is a process of some 100 MB."""
_GAVE_UP: Final = re.compile(rb"Detected \d+ .*failed runs.*shutting down")
"""The line of an agent that leaves after failures. Its exit code is 0."""


def run_agents(sweep: str, trials: int, changes: Sequence[str]) -> None:
    """Keeps `trials` agents of a sweep until all have left.

    A stop asks the running trials for a checkpoint. Raises ConfigError, Interrupted after a stop, and SweepFailed if an
    agent failed or gave up, or if trials failed and none finished.
    """
    if not _SWEEP.fullmatch(sweep):
        raise ConfigError(f"{sweep!r} is not the path of a sweep: ENTITY/PROJECT/ID, as `wandb sweep` prints it")
    if not 1 <= trials <= MOST:
        raise ConfigError(f"--trials must be between 1 and {MOST}, got {trials}")
    for change in changes:
        if not change.startswith("sweep.") or any(letter.isspace() for letter in change):
            raise ConfigError(f"{change}: only sweep.FIELD=VALUE without spaces; a trial's settings are the sweep's")
    settings_of(changes)
    folder = SweepFolder(SWEEPS / sweep.rpartition("/")[2])
    before = _results(folder)
    environment = {**os.environ, SHARE: " ".join(["--trials", str(trials), *changes])}
    words = [sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep]
    agents = [
        subprocess.Popen(words, env=environment, start_new_session=True, stderr=subprocess.PIPE) for _ in range(trials)
    ]
    listeners = [_Listener(agent.stderr) for agent in agents if agent.stderr is not None]
    stopped: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        for agent in agents:
            agent.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    codes = [agent.wait() for agent in agents]
    for listener in listeners:
        listener.join()
    if stopped:
        raise Interrupted("the agents have left; start them again to go on", stopped[0])
    if any(codes):
        raise SweepFailed(f"{sum(code != 0 for code in codes)} of {trials} agents failed; what they printed says why")
    _check(folder, before, sum(listener.gave_up for listener in listeners), trials)


class _Listener(threading.Thread):
    """Passes on what an agent and its trials print to stderr, and hears whether the agent gives up."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream, self.gave_up = stream, False
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.gave_up = self.gave_up or _GAVE_UP.search(line) is not None
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()


def _check(folder: SweepFolder, before: dict[Path, int], gave_up: int, agents: int) -> None:
    changed = dict(_results(folder).items() - before.items())
    states = [state_of(entry) for entry in folder.entries() if entry.path in changed]
    finished = sum(state in COMPLETE for state in states)
    failed = len(states) - finished
    if gave_up:
        raise SweepFailed(
            f"{gave_up} of {agents} agents gave up after failed trials ({finished} finished, {failed} failed in "
            f"{folder.path}); what they printed says why"
        )
    if failed and not finished:
        raise SweepFailed(f"{failed} trials failed and none finished; see {folder.path}")


def _results(folder: SweepFolder) -> dict[Path, int]:
    files = [(entry.path, entry.folder.result) for entry in folder.entries()]
    return {path: file.stat().st_mtime_ns for path, file in files if file.is_file()}
