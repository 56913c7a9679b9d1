"""What a shared executor trains: trials that the agents' processes hand to it, each as long as its process lives."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import COMPLETE, State, Verdict
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import writing
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.execute.child_process import LOCK_WAIT_S
from danube_sweep.sweeping.propose.next_trial import Claim, Wanted, claimed, trained
from danube_sweep.sweeping.share.lines import Lines, is_ours

GATHER_S: Final = 8.0
"""How long a pack waits for one more trial after the last: an agent asks for its next one every 5 seconds."""
IDLE_S: Final = 30.0
"""How long an executor without a trial stays."""


@dataclass
class _Handed:
    """A trial and the process that waits for it."""

    entry: Entry
    lines: Lines
    running: bool = False
    since_s: float = field(default_factory=time.monotonic)
    withdrawn: str | None = None
    """Why it is to leave."""
    config: Config | None = None
    """Of its folder, once it was read."""

    def stored(self) -> Config:
        """The config in the trial's folder, one object for as long as it is handed over. Raises CheckpointError."""
        if self.config is None:
            self.config = load_config(self.entry.folder.config)
        return self.config


@final
class HandedSource:
    """A `Source`; `expected` trials start together, or as many as come within GATHER_S of each other.

    With None, nobody has told how many agents there are: the first trials wait for GATHER_S, and later ones for as many
    as were there at a time.
    With `command`, the file of a `danube-sweep agent`, no more trials are waited for once it is gone.
    """

    def __init__(self, folder: SweepFolder, expected: int | None, command: Path | None = None) -> None:
        self._folder, self._expected, self._command = folder, expected, command
        self._lock = threading.Lock()
        self._handed: dict[str, _Handed] = {}
        self._changed_s = time.monotonic()
        self._most, self._begun = 0, False
        """The most trials that were there at a time, and whether any has begun."""
        self._ended = 0
        self._mistake: str | None = None
        self.notes: list[str] = []

    # ------------------------------------------------------------------------------------------- from the agents

    def listen(self, place: socket.socket) -> None:
        """Takes connections until the socket is closed; for a thread."""
        with suppress(OSError):
            while True:
                connection, _ = place.accept()
                threading.Thread(target=self._attend, args=(Lines(connection),), daemon=True).start()

    def _attend(self, lines: Lines) -> None:
        handed = None
        if is_ours(lines.socket):
            while not lines.closed:
                for message in lines.receive(None):
                    if handed is None:
                        handed = self._take(str(message.get("trial")), lines)
                    elif message.get("stop"):
                        self._withdraw(handed, "its W&B run was stopped")
        if handed is not None:
            self._withdraw(handed, "its agent's process is gone")
        lines.close()

    def _take(self, name: str, lines: Lines) -> _Handed | None:
        with self._lock:  # an index of the folder is for one thread at a time
            found = [one for one in self._folder.entries() if one.path.name == name and one.hash is not None]
            if self._mistake is not None:
                lines.send({"mistake": self._mistake})
                return None
            if not found or name in self._handed:
                place = self._folder.path / name
                why = f"{place} is being trained by another process; wait for it or stop it"
                why = why if found else f"{place} is no trial of this sweep"
                lines.send({"refused": why})
                return None
            handed = self._handed[name] = _Handed(found[0], lines)
            self._changed_s, self._most = time.monotonic(), max(self._most, len(self._handed))
            return handed

    def _withdraw(self, handed: _Handed, why: str) -> None:
        with self._lock:
            handed.withdrawn = handed.withdrawn or why
            if not handed.running:
                self._tell(handed, State.preempted.value)

    def _refuse(self, handed: _Handed, why: str) -> None:
        # Within the lock.
        del self._handed[handed.entry.path.name]
        handed.lines.send({"refused": why})

    def _tell(self, handed: _Handed, state: str) -> None:
        # Within the lock.
        if self._handed.get(handed.entry.path.name) is handed:
            del self._handed[handed.entry.path.name]
            self._changed_s = time.monotonic()
        handed.lines.send({"ended": state})

    # ---------------------------------------------------------------------------------------------- the executor's

    def claim(self, wanted: Wanted | None = None, draws: int = 0) -> Claim | None:
        with self._lock:
            waiting = [one for one in self._handed.values() if not one.running]
            if not any(one.running for one in self._handed.values()) and wanted is None and not self._gathered(waiting):
                return None
            for one in waiting:
                try:
                    claim = self._claimed(one, wanted)
                except CheckpointError as error:
                    self.notes.append(f"{one.entry.path.name} is left out: {error}")
                    self._tell(one, State.invalid.value)
                    continue
                if claim is not None:
                    one.running = self._begun = True
                    return claim
        return None

    def _gathered(self, waiting: list[_Handed]) -> bool:
        expected = self._expected or (self._most if self._begun else None)
        together = expected is not None and len(waiting) >= expected
        return together or time.monotonic() - self._changed_s > GATHER_S

    def _claimed(self, one: _Handed, wanted: Wanted | None) -> Claim | None:
        config = one.stored()
        if wanted is not None and not wanted(trained(one.entry, config)):
            return None
        if (lock := claimed(one.entry)) is None:
            if time.monotonic() - one.since_s > LOCK_WAIT_S:  # its process may just be dying, with its executor
                self._refuse(one, f"{one.entry.path} is being trained by another process; wait for it or stop it")
            return None
        try:
            result = one.entry.folder.read_result()
            if result is not None and result["state"] not in COMPLETE:  # of an attempt that failed
                with writing(one.entry.folder.result):
                    one.entry.folder.result.unlink()
        except BaseException:
            lock.release()
            raise
        return Claim(one.entry, config, lock)

    def waiting(self, wanted: Wanted, most: int) -> list[Config]:
        with self._lock:
            waiting = [one for one in self._handed.values() if not one.running]
        found = []
        for one in waiting:
            with suppress(CheckpointError, OSError):
                config = trained(one.entry, one.stored())
                found += [config] if wanted(config) else []
        return found[:most]

    def drawable(self) -> int:
        return 0

    def first(self, stopping: Callable[[], bool]) -> Config | None:
        """The config of a trial that waits; None when none has come for so long that the executor ends.

        One whose files cannot be read is told so: nothing else would wake the process that waits for it.
        """
        while self.pending() and not stopping():
            self._leave_out_unreadable()
            if found := self.waiting(lambda _: True, 1):
                return found[0]
            time.sleep(0.1)
        return None

    def _leave_out_unreadable(self) -> None:
        with self._lock:
            for one in [*self._handed.values()]:
                try:
                    trained(one.entry, one.stored())
                except (CheckpointError, OSError) as error:
                    self.notes.append(f"{one.entry.path.name} is left out: {error}")
                    self._tell(one, State.invalid.value)

    def pending(self) -> bool:
        with self._lock:
            more = self._command is None or self._command.exists()
            return bool(self._handed) or (more and time.monotonic() - self._changed_s < IDLE_S)

    def progress(self) -> tuple[int, int | None]:
        return self._ended, None

    def validated(self, claim: Claim, number: int) -> Verdict:
        return Verdict.go_on  # W&B's server stops trials, not we

    def withdrawn(self, claim: Claim) -> str | None:
        with self._lock:
            handed = self._handed.get(claim.entry.path.name)
            return "nobody waits for it" if handed is None else handed.withdrawn

    def ended(self, claim: Claim, state: str) -> None:
        with self._lock:
            self._ended += 1
            if (handed := self._handed.get(claim.entry.path.name)) is not None:
                self._tell(handed, state)

    def lost(self, claim: Claim) -> None:
        with self._lock:
            if (handed := self._handed.get(claim.entry.path.name)) is not None:
                self._tell(handed, State.preempted.value)

    def refuse(self, mistake: str) -> None:
        """Tells every process that waits, or comes later, of a mistake in the settings with which none can train."""
        with self._lock:
            self._mistake = mistake
            for one in [*self._handed.values()]:
                del self._handed[one.entry.path.name]
                one.lines.send({"mistake": mistake})

    def close(self, *, stopped: bool) -> None:
        """Lets go of every process that waits: `stopped` on request, or to them the executor is gone."""
        with self._lock:
            for one in [*self._handed.values()]:
                if stopped:
                    self._tell(one, State.preempted.value)
                one.lines.close()
