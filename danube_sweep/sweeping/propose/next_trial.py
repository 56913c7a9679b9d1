"""The next trial: the trials of a folder that have not ended, each claimed by one process at a time.

The order is: trials that were begun, paused trials that now rank high enough, new trials, and last those paused trials
that may still win.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from filelock import Timeout

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import COMPLETE, State, Verdict
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.planner.what_fits import with_micro_batch
from danube_sweep.recovery import mended_config
from danube_sweep.storage.files import set_aside, writing
from danube_sweep.storage.locks import FolderLock, forget, is_held
from danube_sweep.storage.ownership import Kind, check
from danube_sweep.storage.sweep_folder import Entry, SweepFolder, attempts
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping

if TYPE_CHECKING:
    from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal

RECOUNT_S: Final = 5.0
"""How old the count of ended trials may be, where other processes end some too."""
RECOUNTED: Final = 100
"""Trials that are looked at each time."""

Wanted = Callable[[Config], bool]
"""Whether a trial, by the config that it trains with, may join a pack."""


@dataclass
class Claim:
    """A trial that this process runs: no other process takes it while the claim lives, and it dies with its process.

    Where machines share the sweep by leases, a process that did not answer for too long may have `lost` it.
    """

    entry: Entry
    config: Config
    lock: FolderLock

    @property
    def trained(self) -> Config:
        """The config with the micro-batch that the sweep has given the trial. Raises CheckpointError."""
        return trained(self.entry, self.config)

    @property
    def is_held(self) -> bool:
        """Whether it was not released."""
        return self.lock.is_taken

    def lost(self) -> bool:
        """Whether another process has taken the trial over."""
        return self.lock.lost()

    def release(self) -> None:
        """Lets others have the trial."""
        self.lock.release()


class Source(Protocol):
    """Where an executor gets its trials."""

    notes: list[str]
    """Lines for the user. The caller that shows them empties the list."""

    def claim(self, wanted: Wanted | None = None, draws: int = 0) -> Claim | None:
        """The next trial to run; None if there is none now.

        `wanted` restricts it to some of the known trials or, in a search, of `draws` new draws.
        """

    def waiting(self, wanted: Wanted, most: int) -> list[Config]:
        """The configs of known trials that `claim` may bring."""

    def drawable(self) -> int:
        """How many trials may still be drawn."""

    def pending(self) -> bool:
        """Whether a later `claim` may bring one: another process holds a trial that may come free."""

    def progress(self) -> tuple[int, int | None]:
        """How many trials have ended, here and elsewhere, and how many there will be, if that is known."""

    def validated(self, claim: Claim, number: int) -> Verdict:
        """The verdict on a trial after `number` validations, which are in its metrics.csv."""

    def withdrawn(self, claim: Claim) -> str | None:
        """Why a running trial is to leave after a checkpoint, without a result; None if it is not."""

    def ended(self, claim: Claim, state: str) -> None:
        """Takes the end of an attempt, still claimed."""

    def lost(self, claim: Claim) -> None:
        """Forgets a trial that another process has taken over; its end is not ours to tell."""


def trained(entry: Entry, config: Config) -> Config:
    """The config that an entry trains with. Raises CheckpointError."""
    return with_micro_batch(config, entry.folder.micro_batch(config))


def claimed(entry: Entry) -> FolderLock | None:
    """The held claim of a trial, or None if another process has it."""
    if is_held(entry.folder.lock):  # by a run of its own: a W&B agent's, say
        return None
    lock = FolderLock(entry.folder.claim, timeout_s=0)
    try:
        with writing(entry.folder.claim):
            lock.acquire()
    except Timeout:
        return None
    forget(entry.folder.lock)  # of a process of another machine that died while it trained
    return lock


def state_of(entry: Entry, notes: list[str] | None = None) -> str | None:
    """The state in a trial's result, None for a damaged one; with `notes` that is set aside, in a line there.

    Raises CheckpointError for one that cannot be read, which may be whole, DiskError if it cannot be set aside.
    """
    try:
        result = entry.folder.read_result()
        return None if result is None else str(result["state"])
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise
        if notes is not None:
            aside = set_aside(entry.folder.result).name
            notes.append(f"{entry.path.name}: its result.json was damaged; the trial is run again ({aside})")
        return None


def paused_result(entry: Entry, notes: list[str]) -> dict[str, Any] | None:
    """The result that a claimed trial is paused with, None without one; a damaged one is set aside, in a line of notes.

    Without it the trial is no longer paused: it continues from its checkpoint. Raises CheckpointError for one that
    cannot be read, which may be whole, DiskError if it cannot be set aside.
    """
    try:
        return entry.folder.read_paused()
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise
        aside = set_aside(entry.folder.paused).name
        notes.append(f"{entry.path.name}: its paused.json was damaged; it continues from its checkpoint ({aside})")
        return None


@final
class FolderSource:
    """The trials of `folder` that have no result, and those whose state is in `retry`, by number.

    Trials that others add meanwhile are found too. A trial that left no result here (preempted) is not tried twice,
    unless it is paused. `journal` is told of results. `early` decides which trials pause, and which paused ones
    continue.
    """

    def __init__(
        self,
        folder: SweepFolder,
        retry: Collection[str] = (),
        journal: "OptunaJournal | None" = None,
        early: EarlyStopping | None = None,
    ) -> None:
        self._folder, self._retry, self._journal, self._early = folder, retry, journal, early
        self._attempts = {entry.number: len(attempts(entry.folder)) for entry in self._again(folder.entries())}
        """Trials whose end is to be tried again -> attempts so far: another process may do it first."""
        self._configs: dict[str, Config] = {}
        """Hash -> config: reading one takes 50 ms."""
        self._of_training: dict[int, Config] = {}
        """Number -> the config that a trial trains with."""
        self._running: dict[int, Entry] = {}
        """Trials that are claimed here."""
        self._ended: set[int] = set()
        """Trials that had a result when it was last looked for."""
        self._counted_s = -float("inf")
        self._settled: set[int] = set()
        self._tried: set[int] = set()
        self._elsewhere = False
        self.notes: list[str] = []
        """Lines for the user. The caller that shows them empties the list."""
        if early is not None:
            self._look_at_pauses()

    def _look_at_pauses(self) -> None:
        for entry in self._folder.entries():
            if entry.hash is None or not entry.folder.paused.is_file() or entry.folder.paused_fields():
                continue
            if (lock := claimed(entry)) is not None:
                try:
                    paused_result(entry, self.notes)
                except (CheckpointError, DiskError) as error:
                    self.notes.append(f"{entry.path.name} stays paused: {error}")
                finally:
                    lock.release()

    def claim(self, wanted: Wanted | None = None, draws: int = 0) -> Claim | None:
        return self.begin(wanted) or self.revive(wanted)

    def begin(self, wanted: Wanted | None = None) -> Claim | None:
        """`claim` among trials that are not paused, or rank high enough to continue."""
        self._elsewhere = False
        return self._first(self._in_turn(self._folder.entries()), wanted)

    def revive(self, wanted: Wanted | None = None) -> Claim | None:
        """`claim` of paused ones that may still win; None while others are to be seen before them."""
        return (
            None
            if self._early is None
            else self._first(self._early.revivals(self._left(self._folder.entries())), wanted)
        )

    def is_settled(self) -> bool:
        """Whether no paused trial would continue now."""
        entries = self._left(self._folder.entries())
        return self._early is None or not (self._early.promotions(entries) or self._early.revivals(entries))

    def _first(self, entries: Iterable[Entry], wanted: Wanted | None) -> Claim | None:
        for entry in entries:
            if entry.number in self._settled or entry.hash is None:
                continue
            if wanted is not None and self._suitable(entry, wanted) is None:
                continue
            if entry.path.is_symlink():
                self.notes.append(f"{entry.path.name} is left out: it is a symbolic link, which is not written through")
                self._settled.add(entry.number)
                continue
            if self._is_over(entry):
                self._settled.add(entry.number)
                continue
            lock = claimed(entry)
            if lock is None:
                self._elsewhere = True
                continue
            try:
                check(entry.path, Kind.run)
                if self._wanted(entry):
                    if self._early is not None and entry.folder.paused.is_file():
                        self._early.promoted(entry)
                    self._tried.add(entry.number)
                    self._running[entry.number] = entry
                    return Claim(entry, self._config(entry, mend=True), lock)
            except (CheckpointError, OSError) as error:
                self.notes.append(f"{entry.path.name} is left out: {error}")
            self._settled.add(entry.number)
            lock.release()
        return None

    def _is_over(self, entry: Entry) -> bool:
        # Nobody takes back a complete trial, so no claim is needed to see that; any other end may be (sweep.on_oom).
        with suppress(CheckpointError):  # told by whoever claims it
            return state_of(entry) in COMPLETE
        return False

    def _in_turn(self, entries: Sequence[Entry]) -> list[Entry]:
        if self._early is None:
            return list(entries)
        promoted = self._early.promotions(self._left(entries))
        standings = [(entry, self._early.standing(entry)) for entry in entries if entry.number not in self._settled]
        others = [(entry, one) for entry, one in standings if one.has_result or not one.is_paused]
        begun = [entry for entry, one in others if one.has_checkpoints]
        return [*begun, *promoted, *(entry for entry, one in others if not one.has_checkpoints)]

    def _left(self, entries: Sequence[Entry]) -> list[Entry]:
        """Without those that cannot be run and have no result."""
        return [entry for entry in entries if entry.number not in self._settled or entry.folder.result.is_file()]

    def drawable(self) -> int:
        return 0

    def waiting(self, wanted: Wanted, most: int) -> list[Config]:
        entries = self._folder.entries()
        coming = self._suited(self._in_turn(entries), wanted, most)
        if coming or self._early is None:
            return coming
        return self._suited(self._early.revivals(self._left(entries)), wanted, most)

    def _suited(self, entries: Sequence[Entry], wanted: Wanted, most: int) -> list[Config]:
        found = (self._suitable(entry, wanted) for entry in entries if entry.hash is not None)
        return list(islice((config for config in found if config is not None), most))

    def _suitable(self, entry: Entry, wanted: Wanted) -> Config | None:
        """The config of a trial that looks as if it could be claimed; one that cannot be read is left to `claim`."""
        if entry.number in self._settled or entry.number in self._tried:
            return None
        with suppress(CheckpointError, OSError):
            # Most are told apart by their configs alone, which are in memory.
            if not self._is_at_hand(entry) and not self._is_free(entry):
                return None
            config = self._trained(entry)
            return config if wanted(config) and self._is_free(entry) else None
        return None

    def _trained(self, entry: Entry) -> Config:
        # The same object each time, by which a packer knows it again.
        found, known = trained(entry, self._config(entry)), self._of_training.get(entry.number)
        if known is not None and known.trainer.micro_batch == found.trainer.micro_batch:
            return known
        self._of_training[entry.number] = found
        return found

    def _is_at_hand(self, entry: Entry) -> bool:
        return entry.hash in self._configs or self._folder.written_config(entry) is not None

    def _is_free(self, entry: Entry) -> bool:
        if entry.folder.result.is_file() and entry.number not in self._attempts:
            return False
        return not is_held(entry.folder.claim) and not is_held(entry.folder.lock)

    def _config(self, entry: Entry, *, mend: bool = False) -> Config:
        assert entry.hash is not None
        if entry.hash not in self._configs:
            try:
                self._configs[entry.hash] = self._folder.written_config(entry) or load_config(entry.folder.config)
            except CheckpointError:
                mended = mended_config(self._folder, entry, self.notes.append) if mend else None
                if mended is None:
                    raise
                self._configs[entry.hash] = mended
        return self._configs[entry.hash]

    def _again(self, entries: Iterable[Entry]) -> list[Entry]:
        if not self._retry:
            return []
        return [entry for entry in entries if entry.hash is not None and self._is_retried(state_of(entry))]

    def _is_retried(self, state: str | None) -> bool:
        return state is not None and state not in COMPLETE and ("all" in self._retry or state in self._retry)

    def _wanted(self, entry: Entry) -> bool:
        if entry.number in self._tried:
            return False
        state = state_of(entry, self.notes)
        if state is None:
            return True
        if not self._is_retried(state) or self._attempts.get(entry.number) != len(attempts(entry.folder)):
            return False
        with writing(entry.folder.result):
            entry.folder.result.unlink()
        self._ended.discard(entry.number)
        return True

    def pending(self) -> bool:
        return self._elsewhere

    def progress(self) -> tuple[int, int | None]:
        entries, now_s = self._folder.entries(), time.monotonic()
        if now_s - self._counted_s >= RECOUNT_S:
            self._counted_s, self._ended = now_s, set()
        self._ended -= self._running.keys()  # one may have been taken back, to run with less memory
        waiting = [entry for entry in entries if entry.number not in self._ended]
        looked_at = waiting if not self._ended or len(waiting) <= RECOUNTED else self._running.values()
        self._ended.update(entry.number for entry in looked_at if entry.folder.result.is_file())
        return len(self._ended), len(entries)

    def validated(self, claim: Claim, number: int) -> Verdict:
        return Verdict.go_on if self._early is None else self._early.verdict(claim.entry, number)

    def withdrawn(self, claim: Claim) -> str | None:
        return None

    def ended(self, claim: Claim, state: str) -> None:
        self._running.pop(claim.entry.number, None)
        if state == State.paused.value:
            self._tried.discard(claim.entry.number)
        if self._early is not None:
            self._early.left(claim.entry)
        self.heard(claim.entry)

    def lost(self, claim: Claim) -> None:
        self._running.pop(claim.entry.number, None)
        self._tried.discard(claim.entry.number)  # its new holder may die
        if self._early is not None:
            self._early.left(claim.entry)

    def batch(self, most: int) -> list[Entry]:
        """Every trial to run, for a launcher that is not ours; nothing the second time."""
        known = [entry for entry in self._folder.entries() if entry.hash is not None and not entry.path.is_symlink()]
        trials = [entry for entry in known if not is_held(entry.folder.lock)]
        entries = [entry for entry in trials if self._wanted(entry)]
        self._tried.update(entry.number for entry in entries)
        return entries

    def heard(self, entry: Entry) -> None:
        """Takes the result of a trial, if it has one."""
        if self._journal is not None:
            with suppress(CheckpointError):
                values = None if self._early is None else self._early.readings(entry)
                self._journal.ended(entry, entry.folder.read_result(), values)
