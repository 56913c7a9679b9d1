"""The ends of attempts: judged, written down as soon as the disk has room, reported to the source and shown."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any, final

from danube_sweep.config.schema import OnOom, Sweep
from danube_sweep.config.schema.states import COMPLETE, MICRO_BATCH, State
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.checkpoint_places import remove_checkpoints
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder, number_at
from danube_sweep.storage.sweep_folder import Attempt, append_attempt
from danube_sweep.sweeping.execute.messages import Failed
from danube_sweep.sweeping.execute.pace import Pace
from danube_sweep.sweeping.execute.process_outcome import INTERRUPTED, last_lines, outcome
from danube_sweep.sweeping.propose.next_trial import Claim, Source
from danube_sweep.terminal.screen import Terminal, duration


@dataclass(frozen=True)
class EndedAttempt:
    """An attempt that is over, with the sweep's knowledge of its end."""

    claim: Claim
    slot: int
    started: str
    seconds: float
    code: int
    """Of the process, or as if the trial had had one of its own."""
    failed: Failed | None
    timed_out: str | None
    stopped: bool
    """Whether the sweep was stopping."""
    kernel_killed: bool
    pack: str | None = None
    places: int = 1
    """How many trials its process had at a time, at most."""
    present: Sequence[Claim] = ()
    """Those that were there when it ended, itself included."""
    log: Path | None = None
    """The output of its process, if that is not in the trial's own log."""
    withdrawn: str | None = None
    """Why it left without a result, if its source took it back."""
    split: str | None = None
    """The reason why its pack ended, if no trial is blamed for it; the trial continues in a smaller pack."""

    @property
    def name(self) -> str:
        return self.claim.entry.path.name

    @property
    def folder(self) -> RunFolder:
        return self.claim.entry.folder


@final
class Records:
    """Records attempts that have ended. One that cannot be written to a full disk is kept and tried again."""

    def __init__(
        self,
        source: Source,
        settings: Sweep,
        terminal: Terminal,
        slots: int,
        learn: Callable[[Claim, Sequence[Claim], dict[str, Any]], None],
    ) -> None:
        self._source, self._settings, self._terminal = source, settings, terminal
        self._learn = learn
        self._pace = Pace(slots)
        self._noted: set[str] = set()
        self._owed: list[EndedAttempt] = []
        self._recorded: EndedAttempt | None = None
        """The last whose line is in attempts.jsonl."""
        self.blocked: OSError | None = None
        """Why the end of an attempt cannot be written now."""
        self.longest_s = 0.0
        """Of a trial that has finished."""

    def say_once(self, text: str) -> None:
        """Shows a line, unless it was shown before."""
        if text not in self._noted:
            self._noted.add(text)
            self._terminal.note(text)

    def add(self, one: EndedAttempt) -> None:
        """Takes the end of an attempt; `settle` puts it on record."""
        self._owed.append(one)

    def settle(self) -> list[EndedAttempt]:
        """Records as many ended attempts as possible. Returns those that run again at once, still claimed.

        Nothing is written for a trial that another process has taken over.
        """
        again = []
        self.blocked = None
        while self._owed:
            one = self._owed[0]
            if one.claim.lost():
                self._lose(self._owed.pop(0).claim)
                continue
            try:
                state, reason = _judge(one)
                if one is not self._recorded:  # by a round that failed after that
                    self._write(one, state, reason)
                    self._recorded = one
                shrunk = state == State.oom.value and self._shrink(one.claim)
            except OSError as error:
                self.say_once(f"{one.name}: how it ended is not on record yet: {error}")
                self.blocked = error
                break
            self._owed.pop(0)
            if state in COMPLETE:
                self._learn(one.claim, one.present, one.folder.result_fields())
            if shrunk:
                again.append(one)
            elif one.split is None:
                self._release(one.claim, state)
        return again

    def still_held(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those that nobody has taken over; the others leave the source."""
        for claim in claims:
            if claim.lost():
                self._lose(claim)
        return [claim for claim in claims if claim.is_held]

    def _lose(self, claim: Claim) -> None:
        name = claim.entry.path.name
        self._terminal.note(
            f"{name}  lost: another worker took it over while this one did not answer; this attempt is not recorded"
        )
        self._source.lost(claim)
        claim.release()

    def give_up(self) -> None:
        """Drops the attempts that could not be written, with a line for each."""
        for one in self._owed:
            self._terminal.note(f"{one.name}: how it ended could not be written; it counts as not run")
            one.claim.release()

    def _release(self, claim: Claim, state: str) -> None:
        try:
            self._source.ended(claim, state)
        except OSError as error:  # the search hears of it when it next draws
            self.say_once(f"the sweep's history cannot be written: {error}")
        claim.release()

    def _write(self, one: EndedAttempt, state: str, reason: str | None) -> None:
        if state == State.finished.value:
            self.longest_s = max(self.longest_s, one.seconds)
        lasting = state not in (INTERRUPTED, State.preempted.value, State.paused.value)
        if lasting and not one.folder.result.is_file():
            lines = last_lines(one.folder.log) + ([] if one.log is None else last_lines(one.log))
            result = {"trial": one.claim.entry.hash, "state": state, "error": reason, "last_lines": lines}
            write_json(one.folder.result, result)
            one.folder.paused.unlink(missing_ok=True)  # of an earlier attempt
        exit_code = None if one.split is not None else one.code
        attempt = Attempt(state, one.seconds, one.started, node(), exit_code, reason, one.pack, one.slot)
        append_attempt(one.folder, attempt)
        if one.split is not None:
            return
        paused = state == State.paused.value
        self._pace.add(one.name, ended_s=time.monotonic(), seconds=one.seconds, places=one.places, paused=paused)
        said = self._said(one.folder, reason)
        self._terminal.note(f"{self._progress()}  {one.name}  {state}{said}  {one.seconds:.0f} s")

    def _said(self, folder: RunFolder, reason: str | None) -> str:
        metric = objectives(self._settings)[0][0]
        if (value := number_at(folder.result_fields() or folder.paused_fields(), metric)) is not None:
            return f"  {metric} {value:.4f}"
        return "" if reason is None else f": {reason.splitlines()[0]}"

    def _progress(self) -> str:
        ended, total = self._source.progress()
        if total is None:
            return f"[{ended}]"
        left_s = self._pace.left_s(total - ended, time.monotonic())
        return f"[{ended}/{total}]" if left_s is None else f"[{ended}/{total}, {duration(left_s)} left]"

    def _shrink(self, claim: Claim) -> bool:
        """Halves the micro-batch of a trial that ran out of memory, if that is wanted and possible."""
        folder, trainer = claim.entry.folder, claim.config.trainer
        try:
            rows = folder.micro_batch(claim.config)
        except CheckpointError:
            return False
        if self._settings.on_oom is not OnOom.retry or rows == 1:
            return False
        fewer = max(size for size in range(1, rows // 2 + 1) if trainer.effective_batch % size == 0)
        # Steps of the larger micro-batch would mix two orders of rounding: the trial begins again. The result goes
        # last: a sweep that dies here leaves an out-of-memory trial and no trial with two micro-batches.
        remove_checkpoints(folder)
        folder.metrics.unlink(missing_ok=True)
        write_json(folder.adjusted, {MICRO_BATCH: fewer})
        folder.result.unlink(missing_ok=True)
        self._terminal.note(f"{claim.entry.path.name}  again with trainer.micro_batch={fewer}")
        return True


def _judge(one: EndedAttempt) -> tuple[str, str | None]:
    if not one.folder.result.is_file():
        if one.split is not None:
            return INTERRUPTED, one.split
        if one.withdrawn is not None and one.failed is None:
            return State.preempted.value, one.withdrawn
        if one.timed_out is not None:
            return State.timeout.value, one.timed_out
        if one.stopped and one.failed is None and not (one.code == 0 and one.folder.paused.is_file()):
            return INTERRUPTED, None
    return outcome(one.folder, one.code, one.failed, kernel_killed=one.kernel_killed)
