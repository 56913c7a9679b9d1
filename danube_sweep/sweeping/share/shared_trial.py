"""A trial of a W&B agent that an executor of this machine trains: handed over, followed by its files, logged as a run.

This process loads no model. It lives as long as its trial, so that the agent sees what it always sees.
"""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

from danube_sweep.config.schema import Config, WandbTracking
from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.config.stored import plain_config
from danube_sweep.errors import (
    BusyError,
    ConfigError,
    DanubeSweepError,
    Interrupted,
    SweepFailed,
    TrialFailed,
    UserError,
)
from danube_sweep.storage.files import append_only
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.share.agent_command import held_for, named_command
from danube_sweep.sweeping.share.executor_settings import without_effect
from danube_sweep.sweeping.share.lines import Lines, is_ours
from danube_sweep.sweeping.share.meeting_place import named_socket, socket_of
from danube_sweep.tracking import Tracker, open_tracker
from danube_sweep.tracking.reported import reported

SHARE: Final = "DANUBE_SWEEP_SHARE"
"""Set by `danube-sweep agent`: how many trials it keeps, and the sweep's settings."""
POLL_S: Final = 0.5
START_S: Final = 120.0
"""How long an executor may take to listen, on a machine with much else to do."""
EXECUTORS: Final = 3
"""How many executors may die under a trial before it ends as preempted."""
LOG: Final = "executor.log"


def is_shared(config: Config) -> bool:
    """Whether the trial of this agent goes to an executor."""
    return isinstance(config.tracking, WandbTracking) and (config.tracking.share or bool(os.environ.get(SHARE)))


def train_shared(config: Config, path: Path, settings: Sequence[str] = ()) -> None:
    """Has the trial in the folder `path` of its sweep trained, and logs it; returns when it has finished.

    An executor that it has to start follows those of the `settings` (sweep.FIELD=VALUE) that are for executors.

    Raises UserError for a mistake in the trial or the executor's settings, TrialFailed for one that did not finish,
    Interrupted for one that was stopped or lost its executors, and BusyError for one that another process trains.
    """
    trial = _SharedTrial(config, RunFolder(path), SweepFolder(path.parent), settings)
    trial.run()


@final
class _SharedTrial:
    def __init__(self, config: Config, folder: RunFolder, sweep: SweepFolder, settings: Sequence[str] = ()) -> None:
        (entry,) = [one for one in sweep.entries() if one.path == folder.path]
        assert entry.hash is not None
        self._folder, self._sweep, self._settings = folder, sweep, settings
        self._tracker: Tracker = open_tracker(
            config.tracking,
            run_id=entry.hash,
            run_name=config.name or folder.path.name,
            folder=folder.path,
            resolved=plain_config(config),
            say=lambda line: print(line, file=sys.stderr),
        )
        self._logged: set[tuple[str, str]] = set()
        self._rows = 0
        """Rows of metrics.csv when it was last read."""
        self._signal: int | None = None

    def run(self) -> None:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._hear)
            if not self._is_complete():
                self._train()
            self._conclude()
            code = 0
        except DanubeSweepError as error:
            code = error.exit_code
            if not self._folder.result.is_file():
                state = State.preempted if isinstance(error, Interrupted | BusyError) else State.failed
                state = State.invalid if isinstance(error, ConfigError) else state
                self._tracker.summary({"state": state.value, "error": str(error)})
            raise
        finally:
            self._tracker.finish(code)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number

    def _is_complete(self) -> bool:
        return self._folder.result_fields().get("state") in COMPLETE

    def _train(self) -> None:
        for _ in range(EXECUTORS):
            lines = self._connected()
            lines.send({"trial": self._folder.path.name})
            state = self._follow(lines)
            lines.close()
            if state is not None:
                self._log_rows()
                if state in (State.preempted.value, "interrupted"):
                    raise Interrupted(f"it goes on from its checkpoint: {self._folder.path}", self._signal or 15)
                return
            print("the executor of this sweep has ended; the trial goes on from its checkpoint", file=sys.stderr)
        raise Interrupted(f"{EXECUTORS} executors have died under it; see {self._sweep.path / LOG}", 15)

    def _follow(self, lines: Lines) -> str | None:
        """The state in which the trial ended; None if the executor is gone."""
        told = False
        while True:
            for message in lines.receive(POLL_S):
                if "mistake" in message:
                    raise ConfigError(str(message["mistake"]))
                if "refused" in message:
                    raise BusyError(str(message["refused"]))
                if "ended" in message:
                    return str(message["ended"])
            if lines.closed:
                return None
            if not told and (self._signal is not None or self._tracker.stopped):
                lines.send({"stop": True})
                told = True
            self._log_rows()

    def _log_rows(self) -> None:
        if not self._folder.metrics.is_file():
            return
        with self._folder.metrics.open(newline="") as stream:
            text = stream.read()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        if len(rows) < self._rows:  # from a checkpoint, or anew with a smaller micro-batch (sweep.on_oom=retry)
            print("the trial starts again at an earlier step; W&B keeps the rows that it has", file=sys.stderr)
        self._rows = len(rows)
        for row in rows:
            key = row["step"], row["part"]
            if key not in self._logged and None not in row.values():
                self._logged.add(key)
                self._tracker.log(int(row["step"]), _values(row))

    def _conclude(self) -> None:
        result = self._folder.read_result()
        if result is None:
            raise TrialFailed(f"{self._folder.path} ended without a result; see {self._sweep.path / LOG}")
        complete = result["state"] in COMPLETE
        if complete:
            if not self._logged and result.get("validation"):
                self._tracker.log(result["best_step"], reported(result))
            self._tracker.publish(self._folder.predictions, self._product() if self._logged else None)
        error = {"error": result["error"]} if "error" in result else {}
        self._tracker.summary({"state": result["state"], **error, **reported(result)})
        if result["state"] == State.invalid.value:  # a mistake that the executor's child has found
            raise UserError(str(result.get("error")))
        if not complete:
            raise TrialFailed(f"{self._folder.path}: {result['state']}: {result.get('error')}")

    def _product(self) -> Path | None:
        found = [self._folder.path / name for name in ("adapter", "model")]
        return next((folder for folder in found if folder.is_dir()), None)

    # ------------------------------------------------------------------------------------------ the executor

    def _connected(self) -> Lines:
        """A connection to the sweep's executor, which is started if there is none. Raises SweepFailed, ConfigError."""
        path, end, started_s = socket_of(self._sweep.path), time.monotonic() + START_S, 0.0
        while time.monotonic() < end:
            if self._signal is not None:
                raise Interrupted(f"before it was handed over: {self._folder.path}", self._signal)
            # An executor from before a log-in or a log-out has its socket elsewhere.
            for where in filter(None, (named_socket(self._sweep.path), path)):
                place = socket.socket(socket.AF_UNIX)
                with suppress(OSError, ValueError):
                    place.connect(str(where))
                    if is_ours(place):
                        return Lines(place)
                place.close()
            if time.monotonic() > started_s + START_S / 4:  # another process may have started it: only one will stay
                self._start()
                started_s = time.monotonic()
            time.sleep(0.1)
        raise SweepFailed(f"no executor listens after {START_S:g} s; see {self._sweep.path / LOG}")

    def _start(self) -> None:
        command = named_command()
        try:
            kept = [] if command is None else [held_for(command)]
        except FileNotFoundError:
            raise Interrupted("the command that started its agent has ended", signal.SIGTERM) from None
        handle = append_only(self._sweep.path / LOG)
        useless = {one: said for one in self._settings if (said := without_effect([one])) is not None}
        for said in useless.values():
            print(said, file=sys.stderr)
        ours = [one for one in self._settings if one not in useless]
        # Those of `danube-sweep agent` come last, and win.
        words = ["agent", "--serve", str(self._sweep.path), *ours, *os.environ.get(SHARE, "").split()]
        environment = {key: value for key, value in os.environ.items() if key != SHARE}
        subprocess.Popen(
            [sys.executable, "-m", "danube_sweep", *words],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env=environment,
            pass_fds=kept,
            start_new_session=True,  # it outlives this trial
        )
        for one in (*kept, handle):
            os.close(one)


def _values(row: dict[str, Any]) -> dict[str, float]:
    left_out = ("step", "part", "epoch", "seconds")
    return {f"{row['part']}/{key}": float(cell) for key, cell in row.items() if cell and key not in left_out}
