"""What a running `danube-sweep agent` shares with its trials and their executor: one file, named by a variable.

The file is there as long as the command lives. Trials append the errors with which they end. An executor holds a lock
on it from its first moment to its last, which the kernel releases, so that the command can wait until it has gone.
"""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final, final

from danube_sweep.decoding import Undecodable, json_from
from danube_sweep.sweeping.share.meeting_place import socket_of

COMMAND: Final = "DANUBE_SWEEP_AGENT"
"""The variable with the path of the file."""
GONE_WITHIN_S: Final = 60.0
"""How long an executor may take to leave, on a machine with much else to do."""
POLL_S: Final = 0.1


@dataclass(frozen=True)
class TrialError:
    """The error that one trial of an agent has ended with."""

    trial: str
    """The values that the server chose for it."""
    error: str
    code: int


@final
class AgentCommand:
    """The file of this process, made when it is entered and gone when it is left."""

    def __init__(self, sweep: Path) -> None:
        # Containers that share the folder may have a process of this number too.
        self._path = socket_of(sweep).with_suffix(f".{token_hex(8)}.agent")

    @property
    def variable(self) -> dict[str, str]:
        """What the environment of the agents is to have."""
        return {COMMAND: str(self._path)}

    def __enter__(self) -> "AgentCommand":
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._handle)

    def errors(self) -> list[TrialError]:
        """The errors of trials so far."""
        found = []
        for line in self._path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(Undecodable, TypeError):
                found.append(TrialError(**json_from(line)))
        return found

    def dismiss(self) -> bool:
        """Has executors leave that nothing is handed to, and waits for them; False if one stays for other trials."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        end_s = time.monotonic() + GONE_WITHIN_S
        while time.monotonic() < end_s:
            with suppress(BlockingIOError):
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(POLL_S)
        return False


def named_command() -> Path | None:
    """The file of the command whose agent started this process; None without one."""
    named = os.environ.get(COMMAND)
    return Path(named) if named else None


def held_for(command: Path) -> int:
    """A descriptor that an executor is to inherit and to keep. Raises FileNotFoundError if the command has ended."""
    handle = os.open(command, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def tell(command: Path, one: TrialError) -> None:
    """Adds an error to the command's file, if it is still there."""
    with suppress(OSError):
        handle = os.open(command, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            os.write(handle, f"{json.dumps(vars(one))}\n".encode())
        finally:
            os.close(handle)
