"""The digest of a file's content."""

import hashlib
from functools import lru_cache
from pathlib import Path

from danube_sweep.config.kept_digests import stamp_of
from danube_sweep.errors import DataError


def file_digest(path: str | Path, field: str = "data.path") -> str:
    """SHA-256 of a file's bytes. Raises DataError, naming `field`, if there is no such file."""
    file = Path(path).expanduser()
    if not file.is_file():
        if Path(path).expanduser().is_dir():
            raise DataError(f"{field}={path}: a folder, not a file; give one file in it")
        raise DataError(f"{field}={path}: no such file (looked in {Path.cwd()})")
    return _file_digest(*stamp_of(file))


@lru_cache(maxsize=256)
def _file_digest(path: str, _size: int, _mtime_ns: int, _ctime_ns: int, _inode: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
