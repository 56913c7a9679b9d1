"""Slots, each with a process that trains a trial or a pack, until the source is empty, the deadline or a stop.

Knows nothing of Hydra, Optuna or W&B. A `Source` gives the next trial and is told how it ended.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final, final

from danube_sweep.config.schema import Sweep
from danube_sweep.config.schema.states import State
from danube_sweep.errors import DiskError, Interrupted, SweepFailed, UserError
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.attempt_records import Records
from danube_sweep.sweeping.execute.child_process import Task
from danube_sweep.sweeping.execute.form_packs import Packer
from danube_sweep.sweeping.execute.messages import (
    Alive,
    Asked,
    Failed,
    Job,
    Left,
    Message,
    PackTrial,
    Started,
    Stepped,
    Told,
    Validated,
)
from danube_sweep.sweeping.execute.process_outcome import kernel_kills
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.execute.slot_process import (
    ClaimedTrials,
    RunningTrial,
    SlotProcess,
    log_of_a_new_pack,
    of_a_pack,
)
from danube_sweep.sweeping.execute.slots import Slots
from danube_sweep.sweeping.propose.next_trial import Claim, Source, Wanted
from danube_sweep.terminal.screen import Terminal

POLL_S: Final = 0.5
WAIT_FOR_OTHERS_S: Final = 1.0


@final
class Executor:
    """Runs the trials of `source`; `stopping` is asked all the time and ends the sweep after checkpoints.

    The `last` trials are not begun: they are for other slots.
    """

    def __init__(
        self,
        source: Source,
        settings: Sweep,
        slots: Slots,
        terminal: Terminal,
        stopping: Callable[[], bool],
        task: Task = child_process.train_task,
        last: int = 0,
    ) -> None:
        self._source, self._settings, self._slots = source, settings, slots
        self._terminal, self._stopping, self._task = terminal, stopping, task
        self._pool = Pool(on_cpu=slots.on_cpu)
        self._packer = Packer(settings, source, self._claim)
        self._records = Records(source, settings, terminal, len(slots.environments), self._packer.learn)
        self._last = last
        self._running: list[SlotProcess] = []
        self._parts: list[deque[ClaimedTrials]] = [deque() for _ in slots.environments]
        """Claimed trials that start next in each slot: halves of a pack that died, a trial with a smaller micro-batch.
        """
        self._began_s = time.monotonic()
        self._closed = False
        self._told: set[str] = set()
        self._unclaimed: OSError | None = None
        """Why the next trial cannot be written now."""
        self._full_since_s: float | None = None
        """When nothing trained any more on a full disk."""

    def run(self) -> None:
        """Returns when nothing runs any more here, every attempt is on record and every claim is released.

        Raises SweepFailed for a disk that stays full for sweep.disk_wait_s; the trials are then as they were.
        """
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
        # After an error in the sweep's own code: running trials get their time to checkpoint.
        for one in self._running:
            one.child.ask_to_stop()
        while self._running:
            self._listen()
            self._watch()
        self._settle()
        self._records.give_up()
        for claim in [claim for parts in self._parts for part in parts for claim in part.claims]:
            claim.release()

    # ------------------------------------------------------------------------------------------------- starting

    def _go_on(self) -> bool:
        self._settle()
        self._closed = self._closed or self._stopping() or self._past_deadline()
        if self._closed:
            for one in self._running:
                one.child.ask_to_stop()
            return bool(self._running)
        if self._records.blocked is None:
            self._fill()
        if self._running:
            self._full_since_s = None
            return True
        if (full := self._records.blocked or self._unclaimed) is not None:
            self._wait_for_room(full)
            return True
        self._full_since_s = None
        if self._source.pending() and not self._holds_back():
            time.sleep(WAIT_FOR_OTHERS_S)
            return True
        return False

    def _wait_for_room(self, full: OSError) -> None:
        # Nothing trains here that could make room by its end.
        now, wait_s = time.monotonic(), self._settings.disk_wait_s
        if self._full_since_s is None:
            self._full_since_s = now
            self._terminal.note(f"nothing trains meanwhile: waiting sweep.disk_wait_s={wait_s:g} seconds for room")
        if now - self._full_since_s >= wait_s:
            raise SweepFailed(f"{full}, for sweep.disk_wait_s={wait_s:g} seconds")
        time.sleep(min(POLL_S, wait_s))

    def _settle(self) -> None:
        for ended in self._records.settle():
            self._parts[ended.slot].appendleft(ClaimedTrials([ended.claim]))

    def _fill(self) -> None:
        self._unclaimed = None
        for slot in self._free():
            while parts := self._parts[slot]:
                part = parts.popleft()
                part.claims = self._records.still_held(part.claims)
                if part.claims:
                    self._start(part, slot)
                    break
        for slot in self._free():
            if self._too_late():
                self._closed = not self._running
                return
            if self._holds_back():
                return
            claim = self._claim()
            if claim is None:
                return
            key = self._packer.key(claim)
            claims = [claim] if key is None else self._packer.gathered(claim, key, self._share())
            self._start(ClaimedTrials(claims, key), slot)

    def _free(self) -> Iterator[int]:
        for slot in range(len(self._slots.environments)):
            staggered = time.monotonic() < self._began_s + slot * self._settings.stagger_s
            if not (staggered and self._running) and all(one.slot != slot for one in self._running):
                yield slot

    def _claim(self, wanted: Wanted | None = None, draws: int = 0) -> Claim | None:
        try:
            claim = self._source.claim(wanted, draws)
        except (UserError, OSError) as error:  # most likely a full disk: running trials continue
            full = isinstance(error, DiskError) or not isinstance(error, UserError)
            if not self._running and wanted is None and not full:
                raise
            if isinstance(error, OSError) and full and wanted is None:
                self._unclaimed = error
            self._records.say_once(str(error))
            return None
        for note in self._source.notes:
            self._terminal.note(note)
        self._source.notes.clear()
        return claim

    def _share(self) -> int | None:
        # Free slots share the waiting trials: one pack of them all would leave the other slots idle.
        if (waiting := self._waiting()) is None:
            return None
        slots = len(self._slots.environments)
        free = slots - len(self._running) + slots * (self._settings.workers - 1)
        return max(1, -(-waiting // free))

    def _waiting(self) -> int | None:
        ended, total = self._source.progress()
        if total is None:
            return None
        here = sum(len(one.members) for one in self._running)
        here += sum(len(part.claims) for parts in self._parts for part in parts)
        return total - ended - here

    def _holds_back(self) -> bool:
        return self._last > 0 and (waiting := self._waiting()) is not None and waiting <= self._last

    def _start(self, part: ClaimedTrials, slot: int) -> None:
        first, log = part.claims[0], None
        if len(part.claims) > 1:
            try:
                log = log_of_a_new_pack(first.entry.path.parent)
            except OSError as error:
                self._records.say_once(f"the log of a pack cannot be made ({error}): its trials run one at a time")
                self._parts[slot].extendleft(ClaimedTrials([claim]) for claim in reversed(part.claims[1:]))
                part = ClaimedTrials([first])
        environment, threads, together = self._slots.environment(slot), self._slots.threads, len(part.claims)
        pack = () if log is None else tuple(of_a_pack(claim, log, together) for claim in part.claims)
        ranks = self._slots.ranks_in(slot)
        job = Job(first.entry.path, Path.cwd(), environment, first.config, threads, pack, log, ranks=ranks)
        members = {member.name: member for member in map(RunningTrial, part.claims)}
        process = self._pool.start(self._task, job)
        self._running.append(SlotProcess(process, slot, part, members, kernel_kills(), log))

    def _refill(self, one: SlotProcess) -> PackTrial | None:
        # A trial for a free place of a pack.
        if self._closed or one.child.stop_asked_s is not None or self._parts[one.slot] or self._too_late():
            return None
        assert one.part.key is not None and one.log is not None
        claim = self._packer.newcomer(one.part.key, one.present(), one.places)
        if claim is None:
            return None
        one.add(claim)
        return of_a_pack(claim, one.log, len(one.members))

    # ------------------------------------------------------------------------------------------------ deadlines

    def _left_s(self) -> float:
        hours = self._settings.deadline_h
        return float("inf") if hours is None else hours * 3600 - (time.monotonic() - self._began_s)

    def _past_deadline(self) -> bool:
        over = self._left_s() <= 0
        if over:
            hours = self._settings.deadline_h
            self._records.say_once(f"sweep.deadline_h={hours:g} is over: running trials checkpoint and stop")
        return over

    def _too_late(self) -> bool:
        # A trial is not begun when the longest one so far would not have finished in the time left.
        longest_s = self._records.longest_s
        if self._left_s() >= longest_s:
            return False
        self._records.say_once(f"no more starts before sweep.deadline_h: a trial took {longest_s:.0f} s, less is left")
        return True

    # ------------------------------------------------------------------------------------------------ listening

    def _listen(self) -> None:
        places: Mapping[object, SlotProcess] = {place: one for one in self._running for place in one.child.places()}
        heard = {id(places[ready]): places[ready] for ready in wait(list(places), POLL_S)} if places else {}  # type: ignore[arg-type]
        for one in heard.values():
            self._hear(one)
            if not one.child.process.is_alive():
                self._hear(one)  # its last messages
                self._end(one)

    def _hear(self, one: SlotProcess) -> None:
        while (message := one.child.hear()) is not None:
            self._take(one, message)

    def _take(self, one: SlotProcess, message: Message) -> None:
        match message:
            case Started(trial=name, total_steps=total, done_steps=done):
                self._terminal.start(name, total, done)
                one.members[name].shown = True
            case Stepped(trial=name, step=step, loss=loss, tokens_per_s=rate):
                self._terminal.update(name, step, loss=loss, tokens_per_s=rate)
            case Validated(trial=name, number=number):
                one.child.tell(self._source.validated(one.members[name].claim, number))
            case Left(trial=name, code=code, failed=failed):
                member = one.members[name]
                if failed is not None and one.is_crowded_out(member, failed):
                    self._put_aside(one, member, failed)
                self._leave(one, member, code, failed)
            case Asked():
                one.child.tell(self._refill(one))
            case Failed():
                one.failed = message
            case Told(about=about, lines=lines):
                if about not in self._told:
                    self._told.add(about)
                    self._terminal.tell(about, lines)
            case Alive():
                pass
            case _:
                raise TypeError(f"no answer to {type(message).__name__}")

    def _watch(self) -> None:
        now, settings = time.monotonic(), self._settings
        for one in self._running:
            one.child.watch_ranks()
            one.withdraw(self._source.withdrawn)
            if settings.timeout_h is not None and one.child.stop_asked_s is None:
                one.watch_clock(settings.timeout_h, settings.grace_s)
            if one.child.stop_asked_s is not None:
                # The trials of a pack validate and checkpoint one after the other.
                if now - one.child.stop_asked_s > settings.grace_s * max(1, len(one.members)):
                    one.child.kill()
            elif settings.stall_s is not None and now - one.child.heard_s > settings.stall_s:
                one.stalled = f"no step for sweep.stall_s={settings.stall_s:g} seconds"
                one.child.kill()

    # --------------------------------------------------------------------------------------------------- ending

    def _leave(
        self, one: SlotProcess, member: RunningTrial, code: int, failed: Failed | None, *, killed: bool = False
    ) -> None:
        self._records.add(one.ended(member, code, failed, stopped=self._closed, kernel_killed=killed))
        del one.members[member.name]
        if member.shown:
            self._terminal.finish(member.name)
        self._settle()

    def _put_aside(self, one: SlotProcess, member: RunningTrial, failed: Failed) -> None:
        # It did not fit beside the others, which is no fault of its own.
        assert one.part.key is not None
        member.split = failed.reason
        one.put_aside += 1
        self._packer.died(one.part.key, len(one.members) - 1)
        self._parts[one.slot].append(ClaimedTrials([member.claim], one.part.key, split=True))
        self._terminal.note(f"{one.name}  {failed.reason}: {member.name} waits until the others have left")

    def _end(self, one: SlotProcess) -> None:
        code = one.child.reap()
        self._running.remove(one)
        killed, unfinished = kernel_kills() > one.kernel_kills, one.unfinished()
        key = one.part.key
        if unfinished and not self._closed:
            self._blame(one, unfinished, *one.death(code, kernel_killed=killed))
        elif key is not None and not one.members:
            self._packer.survived(key, one.places)
        if key is not None and not self._closed and one.explains(code, kernel_killed=killed):
            self._packer.explained(key)
        failed = one.failed if len(unfinished) == 1 else None
        for member in list(one.members.values()):
            self._leave(one, member, code, failed, killed=killed)

    def _blame(self, one: SlotProcess, unfinished: list[RunningTrial], state: str, reason: str) -> None:
        """Splits a pack that died, without blaming a trial. A trial that ran alone is blamed."""
        key, claims = one.part.key, [member.claim for member in unfinished]
        if state == State.preempted.value:
            return
        if len(claims) == 1 and one.overrun is None:
            unfinished[0].timed_out = one.stalled
            return
        for member in unfinished:
            member.split = reason
        half = len(claims)
        if one.overrun is None and key is not None:
            self._packer.died(key, half // 2)
            half = (half + 1) // 2
        parts = [ClaimedTrials(some, key, split=True) for some in (claims[:half], claims[half:]) if some]
        self._parts[one.slot].extendleft(reversed(parts))
        said = f"{len(claims)} go on from their checkpoints, {half} at a time"
        self._terminal.note(f"{one.name}  {reason.splitlines()[0]}: {said}")
