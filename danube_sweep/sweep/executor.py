"""Slots, each with a trial in a process of its own, until the source is dry, the deadline comes or somebody stops it.

Knows nothing of Hydra, Optuna or W&B: a `Source` says what is next and hears what became of it.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from platform import node
from typing import Final, final

from danube_sweep.errors import CheckpointError, Interrupted, UserError
from danube_sweep.progress import Terminal, duration
from danube_sweep.schema import OnOom, Sweep
from danube_sweep.sweep import child
from danube_sweep.sweep.child import Failed, Job, Message, Started, Stepped, Task, Validated
from danube_sweep.sweep.folder import Attempt, append_attempt
from danube_sweep.sweep.outcome import INTERRUPTED, kernel_kills, last_lines, outcome
from danube_sweep.sweep.pool import Child, Pool
from danube_sweep.sweep.slots import Slots
from danube_sweep.sweep.source import Claim, Source
from danube_sweep.trial import MICRO_BATCH, RunFolder, State, number_at, write_json
from danube_sweep.validate_sweep import objectives

POLL_S: Final = 0.5
WAIT_FOR_OTHERS_S: Final = 1.0


@dataclass
class Running:
    """A slot's present trial."""

    claim: Claim
    child: Child
    slot: int
    kernel_kills: int
    failed: Failed | None = None
    shown: bool = False
    timed_out: str | None = None
    code: int = 0
    seconds: float = 0.0
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def name(self) -> str:
        return self.claim.entry.path.name


@final
class Executor:
    """Runs the trials of `source`; `stopping` is asked all the time and ends the sweep after checkpoints."""

    def __init__(
        self,
        source: Source,
        settings: Sweep,
        slots: Slots,
        terminal: Terminal,
        stopping: Callable[[], bool],
        task: Task = child.train,
    ) -> None:
        self._source, self._settings, self._slots = source, settings, slots
        self._terminal, self._stopping, self._task = terminal, stopping, task
        self._pool = Pool(on_cpu=slots.on_cpu)
        self._running: list[Running] = []
        self._began_s = time.monotonic()
        self._longest_s = 0.0
        self._seconds: list[float] = []
        self._closed = False
        self._noted: set[str] = set()
        self._owed: list[Running] = []
        """Trials that have ended and could not be put on record yet: the disk is full."""
        self.ended: dict[str, int] = {}
        """State -> how many attempts of this process ended in it."""

    def run(self) -> None:
        """Returns when nothing runs any more here, every attempt is on record and every claim is released."""
        try:
            while self._go_on():
                self._listen()
                self._watch()
        except Interrupted:  # asked twice: at once
            for one in self._running:
                one.child.kill()
            raise
        finally:
            self._closed = True
            self._wind_up()

    def _wind_up(self) -> None:
        # After a failure of the sweep's own: what runs gets its time to checkpoint.
        for one in self._running:
            one.child.ask_to_stop()
        while self._running:
            self._listen()
            self._watch()
        self._settle()
        for one in self._owed:
            self._terminal.note(f"{one.name}: how it ended could not be written; it counts as not run")
            one.claim.release()

    # ------------------------------------------------------------------------------------------------- starting

    def _go_on(self) -> bool:
        self._settle()
        self._closed = self._closed or self._stopping() or self._past_deadline()
        if self._closed:
            for one in self._running:
                one.child.ask_to_stop()
            return bool(self._running)
        self._fill()
        if not self._running and self._source.pending():
            time.sleep(WAIT_FOR_OTHERS_S)
            return True
        return bool(self._running)

    def _fill(self) -> None:
        for slot in range(len(self._slots.environments)):
            staggered = time.monotonic() < self._began_s + slot * self._settings.stagger_s
            if any(one.slot == slot for one in self._running) or (staggered and self._running):
                continue
            if self._too_late():
                self._closed = not self._running
                return
            claim = self._claim()
            if claim is None:
                return
            self._start(claim, slot)

    def _claim(self) -> Claim | None:
        try:
            claim = self._source.claim()
        except (UserError, OSError) as error:  # a full disk, most likely: what runs goes on
            if not self._running:
                raise
            self._say_once(str(error))
            return None
        for note in self._source.notes:
            self._terminal.note(note)
        self._source.notes.clear()
        return claim

    def _start(self, claim: Claim, slot: int) -> None:
        job = Job(claim.entry.path, Path.cwd(), self._slots.environment(slot), claim.config, self._slots.threads)
        self._running.append(Running(claim, self._pool.start(self._task, job), slot, kernel_kills()))

    def _say_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._terminal.note(text)

    # ------------------------------------------------------------------------------------------------ deadlines

    def _left_s(self) -> float:
        hours = self._settings.deadline_h
        return float("inf") if hours is None else hours * 3600 - (time.monotonic() - self._began_s)

    def _past_deadline(self) -> bool:
        over = self._left_s() <= 0
        if over:
            self._say_once(f"sweep.deadline_h={self._settings.deadline_h:g} is over: what runs checkpoints and stops")
        return over

    def _too_late(self) -> bool:
        # A trial is not begun when the longest one so far would not have finished in what is left.
        if self._left_s() >= self._longest_s:
            return False
        self._say_once(f"no more starts before sweep.deadline_h: a trial took {self._longest_s:.0f} s, less is left")
        return True

    # ------------------------------------------------------------------------------------------------ listening

    def _listen(self) -> None:
        places: Mapping[object, Running] = {place: one for one in self._running for place in one.child.places()}
        heard = {id(places[ready]): places[ready] for ready in wait(list(places), POLL_S)} if places else {}  # type: ignore[arg-type]
        for one in heard.values():
            self._hear(one)
            if not one.child.process.is_alive():
                self._hear(one)  # what it said last
                self._end(one)

    def _hear(self, one: Running) -> None:
        while (message := one.child.hear()) is not None:
            self._take(one, message)

    def _take(self, one: Running, message: Message) -> None:
        match message:
            case Started(total_steps=total, done_steps=done):
                self._terminal.start(one.name, total, done)
                one.shown = True
            case Stepped(step=step, loss=loss, tokens_per_s=rate):
                self._terminal.update(one.name, step, loss=loss, tokens_per_s=rate)
            case Validated(number=number, metrics=metrics):
                one.child.answer(self._source.validated(one.claim, number, metrics))
            case Failed():
                one.failed = message

    def _watch(self) -> None:
        now, settings = time.monotonic(), self._settings
        for one in self._running:
            if one.child.stop_asked_s is not None:
                if now - one.child.stop_asked_s > settings.grace_s:
                    one.child.kill()
            elif settings.timeout_h is not None and one.child.seconds > settings.timeout_h * 3600:
                one.timed_out = f"longer than sweep.timeout_h={settings.timeout_h:g}"
                one.child.ask_to_stop()
            elif settings.stall_s is not None and now - one.child.heard_s > settings.stall_s:
                one.timed_out = f"no step for sweep.stall_s={settings.stall_s:g} seconds"
                one.child.kill()

    # --------------------------------------------------------------------------------------------------- ending

    def _end(self, one: Running) -> None:
        one.seconds, one.code = one.child.seconds, one.child.reap()
        self._running.remove(one)
        if one.shown:
            self._terminal.finish(one.name)
        self._owed.append(one)
        self._settle()

    def _settle(self) -> None:
        """Puts on record what has ended; on a full disk it is tried again at the next turn, and the claim is kept."""
        while self._owed:
            one = self._owed[0]
            try:
                state, reason = self._judge(one, one.code)
                self._record(one, state, reason)
                again = state == State.oom.value and self._shrink(one.claim)
            except OSError as error:
                self._say_once(str(error))
                return
            self._owed.pop(0)
            if again and not self._closed:
                self._start(one.claim, one.slot)
                continue
            self._release(one.claim, state)

    def _release(self, claim: Claim, state: str) -> None:
        self.ended[state] = self.ended.get(state, 0) + 1
        try:
            self._source.ended(claim, state)
        except OSError as error:  # the search hears of it when it next draws
            self._say_once(f"the sweep's history cannot be written: {error}")
        claim.release()

    def _judge(self, one: Running, code: int) -> tuple[str, str | None]:
        folder = one.claim.entry.folder
        if one.timed_out is not None and not folder.result.is_file():
            return State.timeout.value, one.timed_out
        if self._closed and not folder.result.is_file() and one.failed is None:
            return INTERRUPTED, None
        return outcome(folder, code, one.failed, kernel_killed=kernel_kills() > one.kernel_kills)

    def _record(self, one: Running, state: str, reason: str | None) -> None:
        folder, seconds = one.claim.entry.folder, one.seconds
        if state == State.finished.value:
            self._longest_s = max(self._longest_s, seconds)
        lasting = state not in (INTERRUPTED, State.preempted.value)
        if lasting and not folder.result.is_file():
            lines = last_lines(folder.log)
            result = {"trial": one.claim.entry.hash, "state": state, "error": reason, "last_lines": lines}
            write_json(folder.result, result)
        append_attempt(folder, Attempt(state, seconds, one.started, node(), one.code, reason))
        self._seconds.append(seconds)
        self._terminal.note(f"{self._progress()}  {one.name}  {state}{self._said(folder, reason)}  {seconds:.0f} s")

    def _said(self, folder: RunFolder, reason: str | None) -> str:
        metric = objectives(self._settings)[0][0]
        with suppress(CheckpointError):
            if (value := number_at(folder.read_result() or {}, metric)) is not None:
                return f"  {metric} {value:.4f}"
        return "" if reason is None else f": {reason.splitlines()[0]}"

    def _progress(self) -> str:
        ended, total = self._source.progress()
        if total is None or not self._seconds:
            return f"[{ended}]"
        each_s = sum(self._seconds) / len(self._seconds) / len(self._slots.environments)
        left = f", {duration(max(total - ended, 0) * each_s)} left" if ended < total else ""
        return f"[{ended}/{total}{left}]"

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
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        folder.metrics.unlink(missing_ok=True)
        write_json(folder.adjusted, {MICRO_BATCH: fewer})
        folder.result.unlink(missing_ok=True)
        self._terminal.note(f"{claim.entry.path.name}  again with trainer.micro_batch={fewer}")
        return True
