"""`danube-sweep agent`: several stock W&B agents on this machine, whose trials share one executor."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Final, final

from danube_sweep.config.schema import WandbTracking
from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.errors import ConfigError, Interrupted, SweepFailed, UserError
from danube_sweep.storage.folder_names import SWEEPS
from danube_sweep.storage.redaction import redact
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.sweeping.share.agent_command import AgentCommand, TrialError
from danube_sweep.sweeping.share.executor_settings import settings_of
from danube_sweep.sweeping.share.shared_trial import SHARE
from danube_sweep.tracking import server_problem
from danube_sweep.training.signals import SIGNALS

_SWEEP = re.compile(r"([\w .-]+/){0,2}[\w-]+")
MOST = 64
"""Agents of one command; each is a process of some 100 MB."""
NAMED: Final = 3
"""Trials with a mistake that the last line names."""
_WITHOUT: Final = "run the sweep's file without a server: danube-sweep sweep FILE"
_GAVE_UP: Final = re.compile(rb"Detected \d+ .*failed runs.*shutting down")
"""The line of an agent that leaves after failures. Its exit code is 0."""


def run_agents(sweep: str, trials: int, changes: Sequence[str]) -> None:
    """Keeps `trials` agents of a sweep until all have left.

    A stop asks the running trials for a checkpoint, and their executor to leave. Raises ConfigError, Interrupted after
    a stop, and SweepFailed if an agent failed or gave up, if trials have a mistake, or if trials failed and none
    finished.
    """
    if not _SWEEP.fullmatch(sweep):
        raise ConfigError(f"{sweep!r} is not the path of a sweep: ENTITY/PROJECT/ID, as `wandb sweep` prints it")
    if not 1 <= trials <= MOST:
        raise ConfigError(f"--trials must be between 1 and {MOST}, got {trials}")
    for change in changes:
        if not change.startswith("sweep.") or any(letter.isspace() for letter in change):
            raise ConfigError(f"{change}: only sweep.FIELD=VALUE without spaces; a trial's settings are the sweep's")
    settings_of(changes)
    _check_server()
    folder = SweepFolder(SWEEPS / sweep.rpartition("/")[2])
    before = _results(folder)
    agents = _Agents([sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep])
    with AgentCommand(folder.path) as command:
        codes = agents.run(trials, {SHARE: " ".join(["--trials", str(trials), *changes]), **command.variable})
        errors = command.errors()
        if agents.stopped and not command.dismiss():
            print(f"the executor of {folder.path} goes on with trials of other agents", file=sys.stderr)
    if agents.stopped:
        raise Interrupted("the agents have left; start them again to go on", agents.stopped[0])
    if any(codes):
        raise SweepFailed(f"{sum(code != 0 for code in codes)} of {trials} agents failed; what they printed says why")
    _check(folder, before, agents.gave_up(), trials, errors)


def _check_server() -> None:
    # Once, in our words: each agent would find the same out for itself, after half a minute.
    try:
        problem = server_problem(WandbTracking().timeout_s)
    except ImportError as error:
        raise ConfigError(f"danube-sweep agent needs wandb: pip install wandb, or {_WITHOUT}") from error
    except Exception as error:  # wandb refuses a variable or a line of its settings file
        said = " ".join(redact(str(error)).split())[:300]
        raise ConfigError(f"W&B: {said}; correct it, or {_WITHOUT}") from error
    if problem is not None:
        raise ConfigError(f"W&B: {problem}; or {_WITHOUT}")


@final
class _Agents:
    """Processes of one command, and the signals that they were sent."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._agents: list[subprocess.Popen[bytes]] = []
        self._listeners: list[_Listener] = []
        self.stopped: list[int] = []
        """The signals so far, which are passed on."""

    def run(self, count: int, variables: dict[str, str]) -> list[int]:
        """Starts so many, unless it is stopped meanwhile, and returns their exit codes. Main thread only."""
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._pass_on) for number in heeded}
        try:
            environment = {**os.environ, **variables}
            for _ in range(count):
                if self.stopped:
                    break
                agent = subprocess.Popen(self._words, env=environment, start_new_session=True, stderr=subprocess.PIPE)
                self._agents.append(agent)
                assert agent.stderr is not None
                self._listeners.append(_Listener(agent.stderr))
            if self.stopped and self._agents:  # it may have come between the last start and its place in the list
                self._agents[-1].send_signal(self.stopped[0])
            codes = [agent.wait() for agent in self._agents]
            for listener in self._listeners:
                listener.join()
            return codes
        except BaseException:  # those that have begun would go on in sessions of their own
            for agent in self._agents:
                agent.send_signal(signal.SIGTERM)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def gave_up(self) -> int:
        """How many have left after failures."""
        return sum(listener.gave_up for listener in self._listeners)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.stopped.append(number)
        for agent in self._agents:
            agent.send_signal(number)


class _Listener(threading.Thread):
    """Passes on what an agent and its trials print to stderr, and hears whether the agent gives up."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream, self.gave_up = stream, False
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self.gave_up = self.gave_up or _GAVE_UP.search(line) is not None
            with suppress(OSError, ValueError):  # nobody reads us any more; the agent would wait if nobody read it
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()


def _check(
    folder: SweepFolder, before: dict[Path, int], gave_up: int, agents: int, errors: Sequence[TrialError] = ()
) -> None:
    changed = dict(_results(folder).items() - before.items())
    states = [state_of(entry) for entry in folder.entries() if entry.path in changed]
    finished = sum(state in COMPLETE for state in states)
    wrong = [one for one in errors if one.code == UserError.exit_code]
    failed = max(sum(state not in (*COMPLETE, State.invalid.value) for state in states), len(errors) - len(wrong))
    mistakes = f"; {_mistakes(wrong)}" if wrong else ""
    if gave_up:
        raise SweepFailed(
            f"{gave_up} of {agents} agents gave up after failed trials ({finished} finished, {failed} failed in "
            f"{folder.path}{mistakes}); what they printed says why"
        )
    if wrong:
        raise SweepFailed(f"{_mistakes(wrong)}; {finished} finished")
    if failed and not finished:
        raise SweepFailed(f"{failed} trials failed and none finished; see {folder.path}")


def _mistakes(wrong: Sequence[TrialError]) -> str:
    trials = [one.trial for one in wrong]
    named = ", ".join(trials[:NAMED]) + (f" and {len(trials) - NAMED} more" if len(trials) > NAMED else "")
    several = "" if len({one.error for one in wrong}) == 1 else " (the first one's mistake)"
    return f"{len(wrong)} trial{'s' * (len(wrong) > 1)} cannot train: {named}: {wrong[0].error}{several}"


def _results(folder: SweepFolder) -> dict[Path, int]:
    files = [(entry.path, entry.folder.result) for entry in folder.entries()]
    return {path: file.stat().st_mtime_ns for path, file in files if file.is_file()}
