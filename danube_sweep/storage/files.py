"""Files and folders that are written whole or not at all.

Each write goes to a temporary name in the same folder, is synced and then renamed. Nothing else in the package renames.
"""

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

import yaml
from safetensors import SafetensorError

from danube_sweep.decoding import Undecodable, json_of
from danube_sweep.errors import CheckpointError, DanubeSweepError, DiskError
from danube_sweep.os_errors import number_of
from danube_sweep.storage.leases import fence
from danube_sweep.storage.made_here import WITNESSES, remember
from danube_sweep.storage.redaction import redacted

DAMAGED = ".damaged"
"""Appended to the name of a damaged file that was set aside."""
WAY_OUT = "free some space or choose another folder"
_SUFFIX = ".tmp"
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)(-[0-9a-f]{6})?" + re.escape(_SUFFIX))
"""The final name, and the number of the process that writes it."""


@contextmanager
def whole_file(target: Path, way_out: str = WAY_OUT) -> Iterator[Path]:
    """Gives a temporary path to write to; at the end of the block that file is synced and becomes `target`.

    After an error in the block, the temporary file is gone and an older `target` is unchanged. Raises DiskError, as
    `writing` does, and BusyError if another process has taken over the folder.
    """
    temporary = _temporary(target)
    try:
        with writing(target, way_out):
            yield temporary
            _sync(temporary)
            fence(target)
            temporary.replace(target)
            _sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def whole_folder(
    target: Path, way_out: str = WAY_OUT, *, replace: bool = False, run: Path | None = None
) -> Iterator[Path]:
    """`whole_file` for a folder: gives an empty temporary folder, which becomes `target`.

    With `replace`, an older folder is removed. Without it, DiskError is raised unless the older folder is empty. `run`
    is the run's folder if `target` belongs to the run and lies elsewhere.
    """
    temporary = _temporary(target)
    try:
        with writing(target, way_out):
            temporary.mkdir()
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                _sync(path)
            fence(target)
            if run is not None:
                fence(run)
            if replace:
                shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
            _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(target: Path, way_out: str = WAY_OUT) -> Iterator[None]:
    """Turns the errors of writing in the block into DiskError, which names `target` and the way out.

    These are OSError, and the errors of safetensors and tokenizers that stand for one. Our own errors pass unchanged.
    """
    try:
        yield
    except (DanubeSweepError, TimeoutError):  # a lock that another process holds
        raise
    except Exception as error:
        number = number_of(error)
        if number is None and not isinstance(error, OSError | SafetensorError):
            raise
        told = error.strerror if isinstance(error, OSError) else None
        reason = told or (error if number is None else os.strerror(number))
        raise DiskError(f"{target} cannot be written: {reason}; {way_out}") from error


@contextmanager
def appending(file: Path, way_out: str = WAY_OUT) -> Iterator[IO[bytes]]:
    """Opens a file for appending and creates it if necessary. A symbolic link is refused. Raises DiskError."""
    with writing(file, way_out), open(append_only(file), "ab") as stream:
        yield stream


def append_only(file: Path) -> int:
    """The descriptor of a file that can only grow. Raises OSError, also for a symbolic link."""
    try:
        return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "it is a symbolic link, which is not written through"
        raise


def move(source: Path, target: Path) -> None:
    """Renames a file or folder within its file system. Raises DiskError."""
    with writing(target):
        source.rename(target)


def link(source: Path, target: Path) -> None:
    """Makes `target`, whole or not at all, another name of a file; an older `target` gives way. Raises OSError."""
    temporary = _temporary(target)
    try:
        os.link(source, temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def content_hash(file: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def abandoned(name: str) -> str | None:
    """The final name of a temporary file or folder of ours; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else found[1]


def remove_abandoned(target: Path) -> None:
    """Removes the temporary files that killed processes left beside `target`.

    To be called only while no other process can write `target`.
    """
    for path in target.parent.glob(f".{glob.escape(target.name)}.*{_SUFFIX}"):
        remove(path)


def remove_left_over(target: Path) -> None:
    """Removes the temporary files beside `target` whose process no longer runs on this machine.

    To be called for files that no other machine writes.
    """
    for path in target.parent.glob(f".{glob.escape(target.name)}.*{_SUFFIX}"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is not None and found[1] == target.name and not _runs(int(found[2])):
            remove(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Removes a file or folder of ours, as far as the file system allows. Errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def set_aside(file: Path) -> Path:
    """Renames a damaged file to NAME.damaged, numbered if there is one, and returns the new path. Raises DiskError."""
    others = (file.with_name(f"{file.name}{DAMAGED}-{number}") for number in count(2))
    target = next(one for one in chain([file.with_name(f"{file.name}{DAMAGED}")], others) if not one.exists())
    move(file, target)
    return target


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(3)}{_SUFFIX}")


def _sync(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text as a whole file; raises DiskError."""
    with whole_file(path) as temporary:
        content = text.encode("utf-8", errors="backslashreplace")
        temporary.write_bytes(content)
        if path.name in WITNESSES:
            remember(content)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of JSON without secrets; raises DiskError."""
    write_text(path, json.dumps(redacted(value), indent=1, ensure_ascii=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """`write_text` of YAML without secrets; raises DiskError."""
    write_text(path, yaml_text(redacted(value)))


def yaml_text(value: Any) -> str:
    """YAML in the order of the value, by libyaml where it is there: four times faster than Python's own.

    libyaml escapes characters beyond U+FFFF.
    """
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}
    try:
        return str(yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), **options))
    except UnicodeEncodeError:  # libyaml refuses the lone surrogates of a strange file name
        return str(yaml.safe_dump(value, **options))


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of ours. Raises CheckpointError if it is damaged."""
    try:
        found = json_of(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except Undecodable as error:
        raise CheckpointError(f"{path} is cut short or damaged ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object")
    return found
