"""Files that a command writes to a place of the user's: never onto its input, onto an older file only if asked."""

from collections.abc import Iterable
from pathlib import Path

from danube_sweep.errors import DiskError
from danube_sweep.storage.files import remove_left_over
from danube_sweep.storage.ownership import Kind, is_our_name, is_ours


def check_place(target: Path, option: str, read: Iterable[Path] = (), *, draws: str = "") -> None:
    """Raises DiskError for a target in a missing folder, a folder, a link, a file of ours, or one that is read.

    `option` is the command-line option of the target, for the message. `draws`: the name of the file that the command
    itself writes into folders of ours.
    """
    way_out = f"choose another place by {option}"
    if not target.parent.is_dir():
        raise DiskError(f"{target} cannot be written: No such file or directory; {way_out}")
    if target.is_dir():
        raise DiskError(f"{target} cannot be written: Is a directory; {way_out}")
    for file in read:
        if file.exists() and target.exists() and file.samefile(target):
            raise DiskError(f"{option} {target} is the same file as {file}, which is read; {way_out}")
    if target.is_symlink():
        raise DiskError(f"{option} {target} is a symbolic link, which is not written through; give the file itself")
    kind = _kind_around(target)
    if kind is not None and target.name != draws:
        raise DiskError(f"{option} {target} is a file of the {kind.value} in {target.parent}; {way_out}")


def _kind_around(target: Path) -> Kind | None:
    """The kind of the folder of ours that has a file of this name."""
    return next((kind for kind in Kind if is_our_name(target.name, kind) and is_ours(target.parent, kind)), None)


def refuse_existing(target: Path, option: str, *, overwrite: bool, draws: str = "") -> None:
    """Raises DiskError if the target exists, unless `overwrite` or it is the file that the command draws from a folder
    of ours: `draws` is its name, and it is written anew at any time.

    If it may be written, temporary files of it that killed commands left are removed. Those in a folder of ours stay:
    another machine that shares the folder may be writing them.
    """
    in_ours = any(is_ours(target.parent, kind) for kind in Kind)
    redrawn = target.name == draws and _kind_around(target) is not None
    if target.exists() and not overwrite and not redrawn:
        raise DiskError(f"{option} {target} exists; give --overwrite to replace it, or choose another place")
    if not in_ours:
        remove_left_over(target)
