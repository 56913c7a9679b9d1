"""The one boundary: errors of the operating system, of parsers and of decoders as errors of ours, in one line."""

import errno
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

import yaml

from danube_sweep.errors import DanubeSweepError, DiskError, UserError

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The operating system's numbers for a disk, a quota or a file that is full."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers tell the number, the latter in a bare Exception."""
_IN_BRACKETS = re.compile(r"\((\d{1,3})\)\W*$")
"""How safetensors ends a RuntimeError: `unable to open file <…>: No space left on device (28)`."""
_NOT_OF_FILES = (ConnectionError, TimeoutError, ChildProcessError, ProcessLookupError, InterruptedError)
_WAYS_OUT: Final = {
    **dict.fromkeys(FULL, "free some space or choose another folder"),
    errno.EACCES: "check its permissions or choose another place",
    errno.EPERM: "check its permissions or choose another place",
    errno.EROFS: "choose a folder that can be written",
    errno.EIO: "check the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "give a shorter one",
}
_NO_HOME = "Could not determine home directory."
"""The words of pathlib for ~ without HOME and without an entry for the user, and for ~NAME of nobody."""
_DECODING = (UnicodeError, json.JSONDecodeError, yaml.YAMLError, zlib.error, zipfile.BadZipFile, EOFError)


def number_of(error: BaseException) -> int | None:
    """The operating system's number behind an error, also where a library tells it in its text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, DanubeSweepError):
        return None
    said = str(error)
    if match := _RUST.search(said):
        return int(match[1])
    match = _IN_BRACKETS.search(said)
    return int(match[1]) if match and os.strerror(int(match[1])) in said else None


def is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is the operating system's word that nothing more can be written."""
    return any(number_of(one) in FULL for one in _chain(error))


def as_ours(error: BaseException, place: object = None) -> DanubeSweepError | None:
    """An error of ours for one of the operating system, a parser or a decoder; None for every other.

    `place`: what was read or written, where the error does not name it. An error of ours is returned as it is.
    """
    if isinstance(error, DanubeSweepError):
        return error
    number = None if isinstance(error, _NOT_OF_FILES) else number_of(error)
    if number is not None:
        return DiskError(_said(error, number, place))
    if isinstance(error, RuntimeError) and str(error) == _NO_HOME:
        return UserError(f"{_where(place)}a path that begins with ~ needs a home directory; set HOME, or write it out")
    if isinstance(error, RecursionError):
        return UserError(f"{_where(place)}nested too deeply; HYDRA_FULL_ERROR=1 shows where")
    if isinstance(error, _DECODING):
        said = " ".join(str(error).split())
        return UserError(f"{_where(place)}cannot be decoded: {said}; HYDRA_FULL_ERROR=1 shows where")
    return None


def _said(error: BaseException, number: int, place: object) -> str:
    named = getattr(error, "filename", None)
    if named is None and place is None and number == errno.ENOENT:
        return "the working directory is gone; change to one that exists"
    named = place if named is None else os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else named
    return f"{_where(named)}{os.strerror(number)}; {_WAYS_OUT.get(number, 'HYDRA_FULL_ERROR=1 shows where')}"


def _where(place: object) -> str:
    text = "" if place is None else str(place)
    return "" if not text else f"{text if len(text) <= 200 else f'{text[:100]}…'}: "


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
