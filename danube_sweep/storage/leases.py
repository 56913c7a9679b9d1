"""Leases hold trials where machines do not see each other's locks. A lease is a file `.NAME.lease-N` beside NAME.

The process that made the highest number is the holder. Every few seconds it makes the next number (a heartbeat) and
removes the one before. A reader that sees no new number for the lease's term makes the next one itself. The holder then
finds its next number taken. Making a file that must not exist is atomic on network file systems too. No two clocks are
compared: a term passes by the reader's own.
"""

import os
import re
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from platform import node
from typing import Final, final

from danube_sweep.errors import BusyError

BEATS: Final = 12
"""Heartbeats in a term."""
_FREE: Final = "free"
_NAME: Final = re.compile(r"\.(.+)\.lease-(\d{1,18})")


def is_lease(name: str) -> bool:
    """Whether a file's name is that of a lease."""
    return _NAME.fullmatch(name) is not None


def is_live(file: Path, term_s: float) -> bool:
    """Whether somebody holds the lease beside `file`; one that was not watched for its term counts as held.

    `term_s`: of a lease that does not state its own.
    """
    top = _highest(file)
    return top > 0 and _lives(file, top, term_s)


@final
class Lease:
    """A lease that this process holds; a thread keeps it until `release`, unless another process took it over."""

    def __init__(self, file: Path, term_s: float) -> None:
        self._file, self._term_s = file, term_s
        self._number, self._beaten_s, self._taken = 0, 0.0, False
        self._one = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where only the holder may write."""
        return self._file.parent

    @property
    def interval_s(self) -> float:
        """Seconds between two heartbeats."""
        return self._term_s / BEATS

    def take(self) -> bool:
        """Takes the lease if nobody holds it. Raises OSError."""
        top, now_s = _highest(self._file), _now_s()
        if top > 0 and _lives(self._file, top, self._term_s):
            return False
        if not self._make(top + 1):
            return False
        self._number, self._beaten_s = top + 1, now_s
        _heart().add(self)
        return True

    def lost(self) -> bool:
        """Whether another process has it; asked of the file system if it may have expired since the last heartbeat."""
        if not self._taken and _now_s() - self._beaten_s > self._term_s / 2:
            self.beat()
            return self._taken or _now_s() - self._beaten_s > self._term_s
        return self._taken

    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return _now_s() - self._beaten_s >= self.interval_s

    def beat(self) -> None:
        """Makes the next number. If the file system refuses it, the next beat tries again."""
        with self._one, suppress(OSError):
            now_s = _now_s()
            if self._taken or not self._number:
                return
            if self._follow(self._number + 1):
                self._number, self._beaten_s = self._number + 1, now_s
            else:
                self._taken = True

    def release(self) -> None:
        """Lets others have it at once."""
        _heart().remove(self)
        with self._one, suppress(OSError):
            if self._number and not self._taken:
                self._path(self._number).write_text(_FREE, encoding="utf-8")
            self._number = 0

    def _path(self, number: int) -> Path:
        return self._file.parent / f"{_prefix(self._file)}{number}"

    def _make(self, number: int) -> bool:
        path = self._path(number)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(f"{self._term_s:g} {node() or '-'} {_this_process()}")
        except OSError:
            path.unlink()
            raise
        return self._is_highest(number)

    def _follow(self, number: int) -> bool:
        # A link needs no room on a full disk, and fails both where the next number is taken and where ours is gone.
        before, path = self._path(number - 1), self._path(number)
        try:
            os.link(before, path)
        except FileExistsError:
            with suppress(OSError):  # a network file system may answer a repeated request
                return path.samefile(before) and self._is_highest(number)
            return False
        except FileNotFoundError:
            return False
        except OSError:  # no links on this file system
            return self._make(number)
        return self._is_highest(number)

    def _is_highest(self, number: int) -> bool:
        # Between a look at the numbers and the making of one, others may have made and removed several.
        if _highest(self._file) != number:
            with suppress(OSError):
                self._path(number).unlink()
            return False
        for old in _numbers(self._file):
            if old < number:
                with suppress(OSError):
                    self._path(old).unlink()
        return True


def free_if_expired(file: Path, term_s: float) -> None:
    """Marks a lease as free that nobody holds any more, so that another process need not watch it for its term."""
    lease = Lease(file, term_s)
    if _highest(file) > 0 and lease.take():
        lease.release()


def fence(target: Path) -> None:
    """Raises BusyError if `target` lies where this process held a lease that another process has taken over."""
    for lease in _heart().held():
        if target.is_relative_to(lease.folder) and lease.lost():
            raise BusyError(
                f"{lease.folder} was taken over by another process while this one did not answer; nothing more is "
                "written there"
            )


# ---------------------------------------------------------------------------------------------------- observations


def _prefix(file: Path) -> str:
    return f".{file.name.lstrip('.')}.lease-"


def _numbers(file: Path) -> list[int]:
    prefix = _prefix(file)
    with suppress(FileNotFoundError, NotADirectoryError):
        names = [name for name in os.listdir(file.parent) if name.startswith(prefix) and is_lease(name)]
        return [int(name.removeprefix(prefix)) for name in names]
    return []


def _highest(file: Path) -> int:
    return max(_numbers(file), default=0)


_seen: Final[dict[Path, tuple[int, str, float, float]]] = {}
"""File -> its highest number, the text in that file, and when this process saw it first and last."""


def _lives(file: Path, number: int, term_s: float) -> bool:
    try:
        text = (file.parent / f"{_prefix(file)}{number}").read_text(encoding="utf-8", errors="replace")
    except OSError:  # its holder has just made the next one, or nothing can be said
        return True
    if text == _FREE or _died_here(text):
        return False
    now_s = _now_s()
    with suppress(ValueError):
        term_s = float(text.partition(" ")[0])
    before = _seen.get(file)
    if before is None or before[:2] != (number, text) or now_s - before[3] > term_s:
        # Seen for the first time, or by a process that did not look for so long that it may itself have been stopped.
        _seen[file] = (number, text, now_s, now_s)
        return True
    _seen[file] = (number, text, before[2], now_s)
    return now_s - before[2] <= term_s


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


def _this_process() -> str:
    return f"{_machine()} {os.getpid()} {_began(os.getpid())}"


@cache
def _machine() -> str:
    # Process numbers mean something within one start of one kernel, and one namespace of it.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _began(pid: int) -> str | None:
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None


def _died_here(text: str) -> bool:
    words = text.split(" ")
    if len(words) != 6 or f"{words[2]} {words[3]}" != _machine() or not words[4].isdecimal():
        return False
    return _began(int(words[4])) != words[5]


# ------------------------------------------------------------------------------------------------------ heartbeats


@final
class _Heart:
    """The thread that keeps this process's leases; it lives as long as there are any."""

    def __init__(self) -> None:
        self._leases: list[Lease] = []
        self._changed = threading.Condition()
        self._beats = False

    def held(self) -> list[Lease]:
        with self._changed:
            return [*self._leases]

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases.append(lease)
            if not self._beats:
                self._beats = True
                threading.Thread(target=self._run, name="leases", daemon=True).start()
            self._changed.notify()

    def remove(self, lease: Lease) -> None:
        with self._changed:
            if lease in self._leases:
                self._leases.remove(lease)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._leases:
                    self._beats = False
                    return
                self._changed.wait(min(lease.interval_s for lease in self._leases))
                due = [*self._leases]
            for lease in due:
                if lease.is_due():
                    lease.beat()


_hearts: Final[dict[int, _Heart]] = {}


def _heart() -> _Heart:
    # A forked process holds none of its parent's leases.
    return _hearts.setdefault(os.getpid(), _Heart())
