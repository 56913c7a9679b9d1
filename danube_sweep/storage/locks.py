"""Whether another process holds a file's lock. A lock dies with its process, so a held one is alive."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


def is_held(file: Path) -> bool:
    """Whether some process holds the lock now; where a file system cannot lock, nobody does."""
    if not file.is_file():
        return False
    with suppress(OSError, NotImplementedError):
        try:
            with FileLock(file, timeout=0, fallback_to_soft=False):
                return False
        except Timeout:
            return True
    return False
