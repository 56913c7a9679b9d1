"""Whether the workers of one sweep see each other's locks, checked when a second worker starts.

Each worker keeps a locked file, and a file that it rewrites every second. If the file of another host changes while its
lock is free here, that worker lives and its locks are invisible on this machine. Unless both hold leases, they would
train the same trials.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from typing import Final

from filelock import FileLock, Timeout

from danube_sweep.errors import ConfigError
from danube_sweep.storage.files import writing
from danube_sweep.storage.locks import is_kernel_held

FOLDER: Final = "workers"
_LEASES: Final = "leases"
BEAT_S: Final = 1.0
WATCHED_S: Final = 5.0
"""Long enough for the missed beats of a loaded machine. Only the reader's own clock is used."""


@contextmanager
def worker_present(sweep: Path, host: str | None = None, *, leases: bool = False) -> Iterator[str | None]:
    """Inside, this process is registered as a worker of the sweep. Gives a host whose locks are not seen, or None.

    `host` is this machine's name. `leases`: whether this worker holds its trials by leases too. Raises DiskError, and
    ConfigError if a live worker of another host holds a lock that is not seen here, unless both hold leases.
    """
    here = host or node()
    folder = sweep / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
    unseen = _unseen(folder, here, leases=leases)
    # Containers may share their host's name and each be process 1.
    own = folder / f"{here}_{os.getpid()}-{secrets.token_hex(3)}.lock"
    lock = FileLock(own, timeout=0, fallback_to_soft=False)
    with writing(own):
        lock.acquire()
    ended = threading.Event()
    said = _LEASES if leases else ""
    beats = threading.Thread(target=_beat, args=(own.with_suffix(".beat"), ended, said), daemon=True)
    beats.start()
    try:
        yield unseen
    finally:
        ended.set()
        beats.join()
        with suppress(OSError):
            own.with_suffix(".beat").unlink()
            own.unlink()
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def _beat(file: Path, ended: threading.Event, said: str = "") -> None:
    count = 0
    while True:
        with suppress(OSError):  # training reports a full disk
            file.write_text(f"{count} {said}\n", encoding="ascii")
        count += 1
        if ended.wait(BEAT_S):
            return


def _unseen(folder: Path, here: str, *, leases: bool) -> str | None:
    """A host whose worker is alive and whose locks are not seen, and which holds leases as this one does."""
    found = None
    seen = {file: _read(file) for file in folder.glob("*.beat") if _host(file) != here}
    until_s = time.monotonic() + WATCHED_S
    while seen:
        for file, count in list(seen.items()):
            now = _read(file)
            if is_kernel_held(file.with_suffix(".lock")):
                del seen[file]
            elif now in (count, None):
                continue
            elif leases and _LEASES in str(now):
                found = _host(file)
                del seen[file]
            else:
                raise ConfigError(
                    f"hydra.sweep.dir={folder.parent}: a worker on {_host(file)} trains this sweep, and its locks are "
                    f"not seen on {here}, so trials would be trained twice; give every worker sweep.workers=N without "
                    "sweep.lock=flock, or a folder on a file system whose locks (flock) all machines share"
                )
        if time.monotonic() > until_s:  # left by workers that were killed
            for file in seen:
                _remove(file)
            break
        time.sleep(BEAT_S / 4)
    return found


def _remove(file: Path) -> None:
    lock = FileLock(file.with_suffix(".lock"), timeout=0, fallback_to_soft=False)
    with suppress(OSError, Timeout), lock:
        file.unlink(missing_ok=True)
        file.with_suffix(".lock").unlink(missing_ok=True)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace") or None
    except OSError:
        return None


def _host(file: Path) -> str:
    return file.stem.rpartition("_")[0]
