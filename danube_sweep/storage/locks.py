"""Locks of the files of runs and sweeps: the kernel's, and leases beside them where a sweep is shared between machines.

A kernel's lock dies with its process. Between machines it holds only on file systems that share locks, so workers that
share a sweep hold leases too (leases.py). The sweep's leases.json says so, and every process reads it.
"""

import errno
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from filelock import FileLock, Timeout

from danube_sweep.decoding import Undecodable, json_of
from danube_sweep.storage.files import write_json
from danube_sweep.storage.leases import Lease, free_if_expired, is_live

TERMS: Final = "leases.json"
POLL_S: Final = 0.02
EXPIRES_S: Final = 5.0
"""How long after its term an expired lease is still waited for, on a machine with much else to do."""
_NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_WAY_OUT: Final = "its file system has no locks; give sweep.lock=lease"


@dataclass(frozen=True)
class Terms:
    """How the processes that share a sweep hold its trials."""

    only: bool
    """Whether leases are all there is: kernels' locks do not work on this file system."""
    lease_s: float
    """Seconds without a heartbeat after which a lease counts as left."""


def set_terms(sweep: Path, terms: Terms) -> None:
    """From here on the sweep's locks are held by these terms. Raises DiskError."""
    write_json(sweep / TERMS, {"only": terms.only, "lease_s": terms.lease_s})


def terms_of(sweep: Path) -> Terms | None:
    """The terms of the sweep in a folder; None if it is not shared. Damaged ones are those of an untouched file."""
    try:
        found = json_of(sweep / TERMS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, Undecodable):
        found = None
    match found:
        case {"only": bool(only), "lease_s": int(lease_s) | float(lease_s)} if 0 < lease_s < float("inf"):
            return Terms(only, float(lease_s))
    return Terms(only=False, lease_s=60.0)


def _terms_at(file: Path) -> Terms | None:
    # A lock is a sweep's, or that of one of its trials.
    return terms_of(file.parent) or terms_of(file.parent.parent)


@final
class FolderLock:
    """The lock of a file in a run's or a sweep's folder. Usable as a context."""

    def __init__(self, file: Path, timeout_s: float | None = None, *, outlasts: bool = False) -> None:
        """`timeout_s`: how long `acquire` waits; None waits until it is free.

        With `outlasts` it waits for a lease at least until one whose holder died on another machine has expired.
        """
        self._file, self._timeout_s, self._outlasts = file, timeout_s, outlasts
        self._kernel: FileLock | None = None
        self._lease: Lease | None = None

    def acquire(self) -> None:
        """Holds the lock, or raises filelock.Timeout, or OSError."""
        terms, began_s = _terms_at(self._file), time.monotonic()
        if terms is None or not terms.only:
            self._kernel = FileLock(self._file, timeout=_filelocks(self._timeout_s), fallback_to_soft=False)
            _acquire(self._kernel)
        if terms is None:
            return
        try:
            lease, timeout_s = Lease(self._file, terms.lease_s), self._timeout_s
            if timeout_s is not None and self._outlasts:
                timeout_s = max(timeout_s, time.monotonic() - began_s + terms.lease_s + EXPIRES_S)
            while not lease.take():
                if timeout_s is not None and time.monotonic() - began_s >= timeout_s:
                    raise Timeout(str(self._file))
                time.sleep(POLL_S)
            self._lease = lease
        except BaseException:
            self.release()
            raise

    @property
    def is_taken(self) -> bool:
        """Whether it was acquired and not released since."""
        return self._lease is not None or (self._kernel is not None and self._kernel.is_locked)

    def lost(self) -> bool:
        """Whether another process has taken it over, because this one did not answer for the lease's term."""
        return self._lease is not None and self._lease.lost()

    def release(self) -> None:
        """Lets others have it."""
        if self._lease is not None:
            self._lease.release()
        if self._kernel is not None:
            self._kernel.release()
        self._lease = self._kernel = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(file: Path) -> bool:
    """Whether some process holds the lock now. False on a file system that cannot lock.

    A lease that this process sees for the first time counts as held until its term has passed.
    """
    terms = _terms_at(file)
    if terms is not None and is_live(file, terms.lease_s):
        return True
    if terms is not None and terms.only:
        return False
    return is_kernel_held(file)


def is_kernel_held(file: Path) -> bool:
    """Whether some process holds the kernel's lock now. Leases do not count."""
    if not file.is_file():
        return False
    with suppress(OSError, NotImplementedError):
        try:
            with FileLock(file, timeout=0, fallback_to_soft=False):
                return False
        except Timeout:
            return True
    return False


def forget(file: Path) -> None:
    """For a lock that is not held: spares the next process the time that it would watch a dead holder's lease."""
    if (terms := _terms_at(file)) is not None:
        with suppress(OSError):
            free_if_expired(file, terms.lease_s)


def _filelocks(timeout_s: float | None) -> float:
    return -1 if timeout_s is None else timeout_s


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(errno.ENOSYS, _WAY_OUT) from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise OSError(error.errno, _WAY_OUT) from error
        raise
