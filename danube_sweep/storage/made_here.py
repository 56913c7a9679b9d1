"""The folders that this user made here, known by the digests of their files in the cache.

A folder that came from elsewhere, or whose files others changed, is not among them. Its own statements do not count.
"""

import hashlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from danube_sweep import paths

WITNESSES: Final = ("config.yaml", "environment.json", "trial.json", "sweep.json", "ensemble.json", "night.json")
"""The files of a run, sweep, ensemble or night that decide which other files are read when it is continued."""

log = logging.getLogger(__name__)
_owed: dict[Path, list[str]] = {}
"""Digests that the cache has not taken yet."""


def remember(content: bytes) -> None:
    """Keeps the digest of a file that was written here.

    What the cache does not take is said once in the log and tried again with the next file. Without it, the folder
    counts as made elsewhere.
    """
    record = _record()
    _owed.setdefault(record, []).append(_digest(content))
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, "".join(f"{one}\n" for one in _owed[record]).encode())  # in one piece for other writers
        finally:
            os.close(handle)
        del _owed[record]
    except OSError as error:
        if len(_owed[record]) == 1:
            log.warning("%s: %s; commands may ask for --trust to read what is made here now", record, error.strerror)


def made_here(folder: Path) -> bool:
    """Whether every witness in a folder has the content that was written here. Links are not followed."""
    if any((folder / name).is_symlink() for name in WITNESSES):
        return False
    try:
        found = [(folder / name).read_bytes() for name in WITNESSES if (folder / name).is_file()]
        stat = _record().stat()
    except OSError:
        return False
    known = _known(str(_record()), stat.st_size, stat.st_mtime_ns)
    return bool(found) and all(_digest(content) in known for content in found)


def _record() -> Path:
    return paths.cache_dir() / "made_here"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@lru_cache(maxsize=1)
def _known(record: str, _size: int, _mtime_ns: int) -> frozenset[str]:
    return frozenset(Path(record).read_text(encoding="ascii", errors="replace").split())
