"""Whole runs, in this process or in one of its own, for the tests that look at what a run leaves behind."""

import csv
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import warm
from rich.console import Console

from danube_sweep.config.schema import Config, Device
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_trial

CPU = Device(accelerator="cpu", threads=1)


class StopAfter:
    """Asks for a stop at the border of the n-th step, as a SIGINT then would."""

    def __init__(self, steps: int) -> None:
        self.signal_number = signal.SIGINT
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


def train(config: Config, folder: Path, stop: Any = None) -> dict[str, Any]:
    """A run in this process, silent."""
    quiet_libraries()
    return run_trial(config, folder, Terminal(Console(quiet=True)), stop=stop)


def metrics(folder: Path, part: str) -> list[dict[str, str]]:
    """The rows of metrics.csv that must not vary from run to run."""
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows if row["part"] == part]


def command(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`danube-sweep ARGUMENTS…` in a process of its own."""
    return warm.run("-m", "danube_sweep", *arguments, cwd=cwd, **options)


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The same, not waited for."""
    return warm.popen("-m", "danube_sweep", *arguments, cwd=cwd, env={**os.environ, "PYTHONUNBUFFERED": "1"})
