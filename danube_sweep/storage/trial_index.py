"""The trial.json of every trial of a sweep, read when it is new or has changed.

By default `TrialIndex` looks at every file each time. With `trusted_s`, a file that it has seen counts as unchanged for
that long, and it looks for new folders only. So its cost does not grow with the sweep.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, final

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.field_types import TRIAL as TRIAL_FIELDS
from danube_sweep.storage.field_types import misfit
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import TRIAL, RunFolder

FORMAT: Final = 1
FOLDER: Final = "folder"
"""Stands for a folder without a trial.json."""
SETTLED_NS: Final = 2 * 10**9
"""A folder that changed less than this ago may change again and keep its time, since file systems round times."""


@dataclass(frozen=True)
class Entry:
    """A trial of the sweep, as its trial.json states it. A cell with a mistake has no `hash`."""

    number: int
    hash: str | None
    overrides: list[str]
    path: Path
    draw: int | None = None
    """The number of the search's draw that led here."""
    confirms: bool = False
    """Whether it trains a row that was tied with the best once more, beyond the trials that the sweep was asked for."""
    hash_version: int = 1
    """Of the rules behind `hash`; a file that does not state it is of version 1."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)


@dataclass(frozen=True)
class Damaged:
    """A trial whose trial.json cannot be used."""

    path: Path
    reason: str
    unread: bool = False
    """Whether the disk or its rights kept it from being read: it may be whole."""

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)


@final
class TrialIndex:
    """The trials in the folder `sweep`, whoever adds them."""

    def __init__(self, sweep: Path, trusted_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._sweep, self._trusted_s, self._clock = sweep, trusted_s, clock
        self._looked_s = -float("inf")
        self._seen_ns: int | None = None
        """When the sweep's folder had last changed, if nothing can have come since."""
        self._without: set[str] = set()
        """Folders that have no trial.json, which may get one."""
        self._found: dict[str, Entry | Damaged] = {}
        self._entries: list[Entry] = []

    def entries(self) -> list[Entry]:
        """The trials whose trial.json can be used, by number."""
        self._look()
        if self._trusted_s:
            return [*self._entries]
        # Copies: all callers share one cached reading.
        return [replace(one, overrides=[*one.overrides]) for one in self._entries]

    def damaged(self) -> list[Damaged]:
        """The others, by name."""
        self._look()
        return sorted((one for one in self._found.values() if isinstance(one, Damaged)), key=lambda one: one.path.name)

    def _look(self) -> None:
        now_s, now_ns = self._clock(), time.time_ns()
        if now_s - self._looked_s >= self._trusted_s:
            self._looked_s, self._seen_ns, self._found = now_s, None, {}
        try:
            changed_ns = os.stat(self._sweep).st_mtime_ns
        except OSError:
            self._found, self._entries, self._without, self._seen_ns = {}, [], set(), None
            return
        names, listed = self._without, changed_ns != self._seen_ns
        if listed:
            names = self._names()
            self._found = {name: one for name, one in self._found.items() if name in names}
            self._seen_ns = changed_ns if now_ns - changed_ns > SETTLED_NS else None
        read = {name: _entry_in(os.path.join(self._sweep, name)) for name in names if name not in self._found}
        self._without = {name for name, one in read.items() if one == FOLDER}
        new = {name: one for name, one in read.items() if isinstance(one, Entry | Damaged)}
        self._found |= new
        if new or listed:
            known = [one for one in self._found.values() if isinstance(one, Entry)]
            self._entries = sorted(known, key=lambda entry: entry.number)

    def _names(self) -> set[str]:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(self._sweep) as found:
            return {one.name for one in found}
        return set()


def _entry_in(folder: str) -> Entry | Damaged | str | None:
    """The trial of a folder; `FOLDER` for one that has none, None for anything else."""
    file = os.path.join(folder, TRIAL)
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return FOLDER
    except OSError:
        return None
    try:
        return _read_entry(file, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:  # a later look may read it
        return Damaged(Path(folder), f"it cannot be read: {error.strerror}", unread=True)


@lru_cache(maxsize=100_000)
def _read_entry(name: str, _inode: int, _size: int, _mtime_ns: int) -> Entry | Damaged:
    # Each write of ours makes a new file: its inode and times tell its content from an earlier one. Raises OSError.
    file = Path(name)
    try:
        described = read_json(file)
        if (wrong := misfit(described, TRIAL_FIELDS)) is not None:
            return Damaged(file.parent, wrong)
        if described.pop("format") != FORMAT:
            return Damaged(file.parent, "it is from another version of danube_sweep")
        overrides = [str(one) for one in described.pop("overrides")]
        return Entry(**described, overrides=overrides, path=file.parent)
    except (KeyError, TypeError) as error:
        return Damaged(file.parent, f"a field is missing or unknown: {error}")
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        return Damaged(file.parent, str(error.__cause__ or error))
