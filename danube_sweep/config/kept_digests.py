"""Results about a large file, cached until the file changes, so that it is hashed once per machine.

A record is a small JSON file of the cache for each path. A change is detected by its size, times and
inode. A record may be lost or damaged at any time: then the file is read again.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from danube_sweep import paths
from danube_sweep.decoding import json_of

log = logging.getLogger(__name__)

FRESH_NS: Final = 2 * 10**9
"""A file that was changed so shortly ago could change again without another time: file systems round it."""

Stamp = tuple[str, int, int, int, int]
"""Path, size, mtime, ctime, inode."""

_known: dict[tuple[str, Stamp], Any] = {}


def kept(file: Path, rule: str, find: Callable[[], Any]) -> Any:
    """The result of `find` for the file's content, as plain JSON; a cached result is not computed again.

    `rule` names the result, with its version. Raises what `find` raises, and OSError for a file that is not there.
    """
    stamp, looked_ns = stamp_of(file), time.time_ns()
    if (rule, stamp) in _known:
        return _known[rule, stamp]
    if looked_ns - max(stamp[2], stamp[3]) < FRESH_NS:
        return find()
    record = paths.cache_dir() / "digests" / f"{hashlib.sha256(f'{rule} {stamp[0]}'.encode()).hexdigest()[:32]}.json"
    value = _read(record, stamp)
    if value is None:
        with _alone(record):
            value = _read(record, stamp) or find()
        if stamp_of(file) != stamp:
            return value
        _write(record, stamp, value)
    _known[rule, stamp] = value
    return value


def stamp_of(file: Path) -> Stamp:
    """The values that show a change of a file without reading it."""
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read(record: Path, stamp: Stamp) -> Any:
    try:
        stored = json_of(record)
        if stored["seal"] != _seal(stored["stamp"], stored["value"]):
            raise ValueError("its seal is broken")
        return stored["value"] if tuple(stored["stamp"]) == stamp else None
    except OSError:
        return None
    except (KeyError, TypeError, ValueError):
        log.warning("%s is damaged; reading %s again", record, stamp[0])
        with suppress(OSError):
            record.unlink()
        return None


def _write(record: Path, stamp: Stamp, value: Any) -> None:
    temporary = record.with_name(f".{record.name}.{os.getpid()}.tmp")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        sealed = {"stamp": stamp, "value": value, "seal": _seal(stamp, value)}
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(sealed))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(record)
    except OSError as error:
        log.warning("the digest of %s was not cached, so the next process reads the file again: %s", stamp[0], error)
    finally:  # also after Ctrl-C
        with suppress(OSError):
            temporary.unlink()


def _seal(stamp: Any, value: Any) -> str:
    return hashlib.sha256(json.dumps([stamp, value], sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _alone(record: Path) -> Iterator[None]:
    # Of processes that start together one hashes. Where no lock can be had, each does.
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):
            record.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(record.with_suffix(".lock"), fallback_to_soft=False))
        yield
