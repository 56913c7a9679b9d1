"""`danube-sweep agent`: several stock W&B agents on this machine, whose trials share one executor."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from danube_sweep.errors import ConfigError, Interrupted, SweepFailed
from danube_sweep.sweeping.share.serve import settings_of
from danube_sweep.sweeping.share.shared_trial import SHARE

_SWEEP = re.compile(r"([\w .-]+/){0,2}[\w-]+")
MOST = 64
"""Agents of one command; each is a process of some 100 MB."""


def run_agents(sweep: str, trials: int, changes: Sequence[str]) -> None:
    """Keeps `trials` agents of a sweep until all have left.

    A stop asks the running trials for a checkpoint. Raises ConfigError, Interrupted after a stop, and SweepFailed if an
    agent failed.
    """
    if not _SWEEP.fullmatch(sweep):
        raise ConfigError(f"{sweep!r} is not the path of a sweep: ENTITY/PROJECT/ID, as `wandb sweep` prints it")
    if not 1 <= trials <= MOST:
        raise ConfigError(f"--trials must be between 1 and {MOST}, got {trials}")
    for change in changes:
        if not change.startswith("sweep.") or any(letter.isspace() for letter in change):
            raise ConfigError(f"{change}: only sweep.FIELD=VALUE without spaces; a trial's settings are the sweep's")
    settings_of(changes)
    environment = {**os.environ, SHARE: " ".join(["--trials", str(trials), *changes])}
    words = [sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep]
    agents = [subprocess.Popen(words, env=environment, start_new_session=True) for _ in range(trials)]
    stopped: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        for agent in agents:
            agent.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    codes = [agent.wait() for agent in agents]
    if stopped:
        raise Interrupted("the agents have left; start them again to go on", stopped[0])
    if any(codes):
        raise SweepFailed(f"{sum(code != 0 for code in codes)} of {trials} agents failed; what they printed says why")
