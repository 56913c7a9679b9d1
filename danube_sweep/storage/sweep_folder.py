"""The sweep on disk. The folder is the database: nothing about a sweep is kept anywhere else.

sweep.json           format, door, settings, and the state of a search
001_rank-16_3fa2b1c9/ a run folder per trial: number, varied values, the first digits of its hash
baselines/           linear models on the trials' splits
tokenizers/          the tokenizers' files, which finished trials have links to
confirm.json         the ranking before tied rows were trained again
history.log          Optuna's journal, if the sweep searches or prunes
p001.log             the output of a pack's process
ranking.csv, .md     the ranking, rewritten whenever a process ends the sweep or leaves it
.lock                held while trials are added
leases.json          where several machines share the sweep: how they hold its trials
.danube_sweep        the marker of our folders; ownership.py has every name
"""

import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, final

from filelock import Timeout

from danube_sweep.config.identity import HASH_VERSION, trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import State
from danube_sweep.config.stored import plain_config
from danube_sweep.decoding import json_from
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.storage.field_types import ATTEMPT, misfit, misfit_of_sweep
from danube_sweep.storage.files import DAMAGED, appending, read_json, write_json, write_text, yaml_text
from danube_sweep.storage.folder_names import number_in, trial_folder_name
from danube_sweep.storage.locks import FolderLock
from danube_sweep.storage.ownership import Kind, remove_files, take_over
from danube_sweep.storage.redaction import redacted
from danube_sweep.storage.run_folder import TRIAL, RunFolder
from danube_sweep.storage.trial_index import FORMAT, Damaged, Entry, TrialIndex

__all__ = ["Attempt", "Damaged", "Entry", "SweepFolder", "append_attempt", "as_stored", "attempts"]

LOCK_TIMEOUT_S = 120.0
TRUSTED_S = 10.0
"""How long a watched sweep takes a trial.json that it has seen to be as it was."""
_OTHER_VERSION = "{} is from another version of danube_sweep; start the sweep in a new folder"


@dataclass(frozen=True)
class Attempt:
    """A line of attempts.jsonl: one execution of a trial, written by the process that watched it."""

    state: str
    seconds: float
    started: str
    host: str
    exit: int | None = None
    reason: str | None = None
    pack: str | None = None
    """The pack that it trained in, like p003; None if it had a process of its own."""
    slot: int | None = None


@final
class SweepFolder:
    """The trials of a sweep and its settings. Several processes may use one folder at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken = False
        self._index = TrialIndex(path)
        self._written: dict[Path, tuple[tuple[int, ...] | None, Config]] = {}

    @property
    def file(self) -> Path:
        return self.path / "sweep.json"

    @property
    def history(self) -> Path:
        return self.path / "history.log"

    @property
    def confirmed(self) -> Path:
        """The ranking before tied rows were trained again, and the trials that did it."""
        return self.path / "confirm.json"

    @property
    def baselines(self) -> Path:
        """Holds a folder <split>_<name> for each baseline."""
        return self.path / "baselines"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the folder among all processes. The kernel releases the lock when the process dies.

        Raises CheckpointError if another process holds it for two minutes (or a lease's term, if that is longer) or the
        folder is not ours, DiskError if the folder cannot be made.
        """
        if not self._taken:
            take_over(self.path, Kind.sweep)
            self._taken = True
        lock = FolderLock(self.path / ".lock", LOCK_TIMEOUT_S, outlasts=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise CheckpointError(f"{self.path} is locked by another process; wait for it or stop it") from error
        except OSError as error:
            raise DiskError(f"{self.path} cannot be written: {error.strerror}; choose another folder") from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def whole_or_as_before(self) -> Iterator[None]:
        """Removes the trials that the block added, unless it ends normally (Ctrl-C, a full disk).

        For a block that ends with `write`, in a folder that is no sweep yet. To be used while `locked`.
        """
        began, before = self.file.is_file(), {entry.path for entry in self.entries()}
        try:
            yield
        except BaseException:
            for entry in [] if began else self.entries():
                if entry.path not in before:
                    remove_files(entry.path, Kind.run)
            if not began and not before:
                remove_files(self.path, Kind.sweep)
            raise

    def write(self, description: dict[str, Any]) -> None:
        """Writes sweep.json: from here on the folder is a sweep."""
        write_json(self.file, {"format": FORMAT, "hash_version": self.hash_version(), **description})

    def hash_version(self) -> int:
        """The version of the rules behind its trials' hashes, which a sweep keeps. Today's for a new folder.

        Raises CheckpointError for a damaged sweep.
        """
        if self.file.is_file():
            return int(self._stored()["hash_version"])
        return min((entry.hash_version for entry in self.entries() if entry.hash), default=HASH_VERSION)

    def read(self) -> dict[str, Any]:
        """The description that `write` was given. Raises CheckpointError for a folder that is no sweep or of another
        version.
        """
        stored = self._stored()
        del stored["hash_version"]
        return stored

    def _stored(self) -> dict[str, Any]:
        if not self.file.is_file():
            raise CheckpointError(f"{self.path} is no sweep: it has no {self.file.name}")
        try:
            described = read_json(self.file)
            if (wrong := misfit_of_sweep(described)) is not None:
                raise CheckpointError(f"{self.file} is damaged ({wrong})")
        except CheckpointError as error:
            if isinstance(error.__cause__, OSError):  # it may be whole
                raise
            raise CheckpointError(
                f"{self.file} is cut short or damaged; delete it and give the sweep's command again with "
                f"hydra.sweep.dir={self.path}: its trials are kept"
            ) from error
        if described.pop("format", None) != FORMAT:
            raise CheckpointError(_OTHER_VERSION.format(self.file))
        return {"hash_version": 1, **described}

    def watched(self) -> "SweepFolder":
        """The same folder for whoever asks for its trials all the time: a changed trial.json is seen late.

        New trials are seen at once, wherever they come from.
        """
        watched = copy(self)
        watched._index = TrialIndex(self.path, TRUSTED_S)
        return watched

    def entries(self) -> list[Entry]:
        """Every trial, by number; those whose trial.json is damaged are in `damaged`."""
        return self._index.entries()

    def damaged(self) -> list[Damaged]:
        """The trials whose trial.json cannot be used, by name."""
        return self._index.damaged()

    def written_config(self, entry: Entry) -> Config | None:
        """The config that this process wrote for a trial, if its file is still that one: reading one takes 50 ms."""
        stamp, config = self._written.get(entry.path, (None, None))
        return config if stamp is not None and stamp == _stamp(entry.folder.config) else None

    def hashes(self, trials: Sequence[tuple[Config, list[str]]], *, planning: bool = False) -> list[str]:
        """The hash of each trial (config, overrides) in this sweep.

        In a sweep of an older version, a trial with the overrides of an entry is that entry, since defaults have
        changed. `planning` is that of `trial_hash`. Raises its errors.
        """
        version = self.hash_version()
        told = {tuple(one.overrides): one.hash for one in self.entries()} if version < HASH_VERSION else {}
        return [
            told.get(as_stored(words)) or trial_hash(config, version, planning=planning) for config, words in trials
        ]

    def add(
        self,
        trials: Sequence[tuple[Config, list[str], int | None]],
        shared: Collection[str] = (),
        *,
        confirms: bool = False,
    ) -> list[tuple[Entry, bool]]:
        """Adds trials (config, overrides, draw), each once: one with a known hash is the entry that has it.

        `shared` overrides stay out of the folders' names. Returns each entry and whether it is new, in the order given.
        To be called while `locked`.
        """
        known = {entry.hash: entry for entry in self.entries() if entry.hash is not None}
        number, version = self._next_number(), self.hash_version()
        added = []
        hashes = self.hashes([(config, overrides) for config, overrides, _ in trials])
        for identity, (config, overrides, draw) in zip(hashes, trials, strict=True):
            if new := identity not in known:
                path = self._path(number, overrides, shared, identity)
                known[identity] = self._add(
                    Entry(number, identity, overrides, path, draw, confirms=confirms, hash_version=version), config
                )
                number += 1
            added.append((known[identity], new))
        return added

    def add_invalid(
        self, cells: Sequence[tuple[list[str], str]], shared: Collection[str] = (), *, left_out: bool = False
    ) -> list[Entry]:
        """Adds cells (overrides, error) that cannot be trials, with their result. To be called while `locked`.

        `left_out`: the user asked to leave such cells out, and the sweep is complete without them.
        """
        known = {tuple(entry.overrides): entry for entry in self.entries() if entry.hash is None}
        number = self._next_number()
        for overrides, error in cells:
            if as_stored(overrides) not in known:
                path = self._path(number, overrides, shared, "invalid")
                result = {"state": State.invalid.value, "error": error, "left_out": left_out}
                entry = self._add(Entry(number, None, overrides, path), result=result)
                known[as_stored(overrides)], number = entry, number + 1
        return [known[as_stored(overrides)] for overrides, _ in cells]

    def drop_invalid(self, cells: Collection[Sequence[str]]) -> None:
        """Removes cells that could not be trials, by their overrides. To be called while `locked`."""
        wanted = {as_stored(overrides) for overrides in cells}
        for entry in self.entries():
            if entry.hash is None and tuple(entry.overrides) in wanted:
                remove_files(entry.path, Kind.run)

    def _next_number(self) -> int:
        # A folder whose trial.json is damaged, or set aside for that, keeps its number.
        unknown = [one.path for one in self.damaged()] + [file.parent for file in self.path.glob(f"*/{TRIAL}{DAMAGED}")]
        named = [number_in(path.name) or 0 for path in unknown]
        return max([*named, *(entry.number for entry in self.entries())], default=0) + 1

    def _path(self, number: int, overrides: Sequence[str], shared: Collection[str], identity: str) -> Path:
        varied = as_stored([one for one in overrides if one not in shared])
        return self.path / trial_folder_name(number, list(varied), identity)

    def _add(self, entry: Entry, config: Config | None = None, result: dict[str, Any] | None = None) -> Entry:
        with _made(entry.path):
            if config is not None:
                self.write_config(entry, config)
            if result is not None:
                write_json(entry.folder.result, result)
            self.write_trial(entry)  # last: with it the folder is a trial
        return entry

    def write_config(self, entry: Entry, config: Config) -> None:
        """Writes a trial's config.yaml. Raises DiskError."""
        plain = plain_config(config)
        stored = redacted(plain)
        write_text(entry.folder.config, yaml_text(stored))
        if stored == plain:  # with a secret it is another one when it is read
            self._written[entry.path] = _stamp(entry.folder.config), config

    def write_trial(self, entry: Entry) -> None:
        """Writes a trial's trial.json. Raises DiskError."""
        described = {key: value for key, value in asdict(entry).items() if key != "path"}
        write_json(entry.folder.trial, {"format": FORMAT, **described})


def _stamp(file: Path) -> tuple[int, ...] | None:
    with suppress(OSError):
        stat = file.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
    return None


def as_stored(overrides: Sequence[str]) -> tuple[str, ...]:
    """Overrides as trial.json holds them: without secrets."""
    return tuple(redacted(list(overrides), "overrides"))


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Makes a trial's folder; after an error in the block, one that was not there before is gone again."""
    if path.is_symlink():
        raise CheckpointError(f"{path} is a symbolic link, which is not written through; remove it")
    new = not path.exists()
    try:
        take_over(path, Kind.run)
        yield
    except BaseException:
        if new:
            with suppress(OSError):
                remove_files(path, Kind.run)
        raise


def append_attempt(folder: RunFolder, attempt: Attempt) -> None:
    """Appends a line to attempts.jsonl and syncs it. Raises DiskError."""
    with appending(folder.attempts, "free some space") as stream:
        if folder.attempts.stat().st_size and not folder.attempts.read_bytes().endswith(b"\n"):
            stream.write(b"\n")  # a full disk has cut the line before
        stream.write(f"{json.dumps(redacted(asdict(attempt)), ensure_ascii=False)}\n".encode(errors="backslashreplace"))
        stream.flush()
        os.fsync(stream.fileno())


def training_s(folder: SweepFolder) -> float:
    """The seconds in which at least one trial of a sweep trained, by its attempts.jsonl: those of a pack count once."""
    spans = []
    for attempt in (one for entry in folder.entries() for one in attempts(entry.folder)):
        with suppress(ValueError):
            start_s = datetime.fromisoformat(attempt.started).timestamp()
            spans.append((start_s, start_s + max(attempt.seconds, 0.0)))
    total_s, until_s = 0.0, -math.inf
    for start_s, end_s in sorted(spans):
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s


def attempts(folder: RunFolder) -> list[Attempt]:
    """The attempts so far. A line that was cut short is skipped."""
    if not folder.attempts.is_file():
        return []
    found = []
    # Not splitlines: a reason may hold a line separator of Unicode, which JSON leaves as it is.
    for line in folder.attempts.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValueError, TypeError):
            attempt = Attempt(**json_from(line))
            if misfit(asdict(attempt), ATTEMPT) is None:
                found.append(attempt)
    return found
