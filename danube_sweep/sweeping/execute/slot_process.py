"""The process in a slot: with one trial, or with a pack of trials that train together."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from danube_sweep.config.schema.states import State
from danube_sweep.sweeping.execute.attempt_records import EndedAttempt
from danube_sweep.sweeping.execute.messages import Dismissal, Failed, PackTrial
from danube_sweep.sweeping.execute.process_outcome import outcome
from danube_sweep.sweeping.execute.process_pool import Child
from danube_sweep.sweeping.propose.next_trial import Claim


@dataclass
class ClaimedTrials:
    """Claimed trials that start together in a slot; others with the same `key` may join them later."""

    claims: list[Claim]
    key: str | None = None
    split: bool = False
    """Whether they come from a larger pack that died."""


@dataclass
class RunningTrial:
    """A trial in a running process."""

    claim: Claim
    shown: bool = False
    timed_out: str | None = None
    dismissed_s: float | None = None
    withdrawn: str | None = None
    """Why it leaves without a result, if its source has taken it back."""
    split: str | None = None
    """The reason why its pack ended, if no trial of it is blamed for that."""
    began_s: float = field(default_factory=time.monotonic)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def name(self) -> str:
        return self.claim.entry.path.name

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began_s


@dataclass
class SlotProcess:
    """A slot's current process and those of its trials that have not left."""

    child: Child
    slot: int
    part: ClaimedTrials
    """The trials that it began with."""
    members: dict[str, RunningTrial]
    kernel_kills: int
    log: Path | None = None
    """Of a pack, whose name is its stem; None for a trial alone."""
    failed: Failed | None = None
    stalled: str | None = None
    put_aside: int = 0
    """Trials that did not fit beside the others."""
    overrun: str | None = None
    """Why it was killed, if for one of its trials and no fault of the others."""

    @property
    def name(self) -> str | None:
        return None if self.log is None else self.log.stem

    @property
    def places(self) -> int:
        """The most trials that are in it at a time."""
        return max(1, len(self.part.claims) - self.put_aside)

    def add(self, claim: Claim) -> None:
        """Counts a trial that takes a free place."""
        member = RunningTrial(claim)
        self.members[member.name] = member

    def present(self) -> list[Claim]:
        """The trials that have not left."""
        return [member.claim for member in self.members.values()]

    def unfinished(self) -> list[RunningTrial]:
        """The trials of which nobody knows yet how they end."""
        members = self.members.values()
        return [one for one in members if one.timed_out is None and not one.claim.entry.folder.result.is_file()]

    def is_crowded_out(self, member: RunningTrial, failed: Failed) -> bool:
        """Whether a trial could not begin for want of memory beside others."""
        return failed.state == State.oom.value and len(self.members) > 1 and member in self.unfinished()

    def watch_clock(self, timeout_h: float, grace_s: float) -> None:
        """Asks trials that take too long to leave, and ends the process when one doesn't. A stop has its own.

        `grace_s`: for each trial, since those of a pack validate and checkpoint one after the other.
        """
        count = max(1, len(self.members))
        for member in self.members.values():
            if member.timed_out is None and member.seconds > timeout_h * 3600:
                member.timed_out, member.dismissed_s = f"longer than sweep.timeout_h={timeout_h:g}", time.monotonic()
                if self.log is None:
                    self.child.ask_to_stop()
                else:
                    self.child.tell(Dismissal(member.name, member.timed_out))
            elif member.dismissed_s is not None and time.monotonic() - member.dismissed_s > grace_s * count:
                each = f" for each of {count} trials" if count > 1 else ""
                self.overrun = f"{member.name} did not leave within sweep.grace_s={grace_s:g} seconds{each}"
                self.child.kill()

    def withdraw(self, reason_of: Callable[[Claim], str | None]) -> None:
        """Asks trials that their source has taken back to leave."""
        for member in self.members.values():
            if member.withdrawn is None and (reason := reason_of(member.claim)) is not None:
                member.withdrawn = reason
                if self.log is None:
                    self.child.ask_to_stop()
                else:
                    self.child.tell(Dismissal(member.name, reason))

    def death(self, code: int, *, kernel_killed: bool) -> tuple[str, str]:
        """State and reason of a process by its end, for trials that it has left unfinished."""
        if self.stalled is not None or self.overrun is not None:
            return State.timeout.value, str(self.overrun or self.stalled)
        first = [*self.unfinished(), *self.members.values()][0]
        state, reason = outcome(first.claim.entry.folder, code, self.failed, kernel_killed=kernel_killed)
        return state, str(reason)

    def explains(self, code: int, *, kernel_killed: bool) -> bool:
        """Whether its trial caused the death of an earlier pack: it was split off, and alone it ends badly too."""
        if self.log is not None or not self.part.split:
            return False
        state, _ = self.death(code, kernel_killed=kernel_killed)
        return state in (State.failed.value, State.killed.value, State.timeout.value)

    def ended(
        self, member: RunningTrial, code: int, failed: Failed | None, *, stopped: bool, kernel_killed: bool = False
    ) -> EndedAttempt:
        """The end of a member's attempt."""
        return EndedAttempt(
            member.claim,
            self.slot,
            member.started,
            member.seconds,
            code,
            failed,
            member.timed_out,
            stopped=stopped,
            kernel_killed=kernel_killed,
            pack=self.name,
            places=self.places,
            present=self.present(),
            log=self.log,
            split=member.split,
            withdrawn=member.withdrawn,
        )


def log_of_a_new_pack(sweep: Path) -> Path:
    """A new empty file p001.log, p002.log, …, with a name that no other pack of the sweep has. Raises OSError."""
    taken = {file.name for file in sweep.glob("p*.log")}
    for file in (sweep / f"p{number:03d}.log" for number in count(1)):
        if file.name in taken:
            continue
        try:
            file.touch(exist_ok=False)
        except FileExistsError:  # another process was faster
            continue
        return file
    raise AssertionError


def of_a_pack(claim: Claim, log: Path, together: int) -> PackTrial:
    """The trial for its process, with a word for its log; `together` counts it too."""
    others = {1: "alone", 2: "with 1 other"}.get(together, f"with {together - 1} others")
    note = f"trains in pack {log.stem}, at first {others}; what its process prints is in ../{log.name}"
    return PackTrial(claim.entry.path, claim.config, note)
