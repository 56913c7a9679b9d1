"""Files that a command writes to a place of the user's: never onto its input, onto an older file only if asked."""

from collections.abc import Iterable
from pathlib import Path

from danube_sweep.errors import DiskError
from danube_sweep.storage.files import remove_left_over
from danube_sweep.storage.ownership import Kind, is_our_name, is_ours

_DRAWN_FROM_A_SWEEP = {"ranking.csv", "ranking.md", "report.html", "oof.parquet"}
"""Files of a sweep's folder that follow from the others: they are written anew at any time."""


def check_place(target: Path, option: str, read: Iterable[Path] = ()) -> None:
    """Raises DiskError for a target in a missing folder, a folder, a link, a file of ours, or one that is read.

    `option` is the command-line option of the target, for the message.
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
    for kind in (Kind.run, Kind.sweep, Kind.ensemble):
        if is_our_name(target.name, kind) and target.name not in _DRAWN_FROM_A_SWEEP and is_ours(target.parent, kind):
            raise DiskError(f"{option} {target} is a file of the {kind.value} in {target.parent}; {way_out}")


def refuse_existing(target: Path, option: str, *, overwrite: bool) -> None:
    """Raises DiskError if the target exists, unless `overwrite` or it is a file of a sweep that is drawn anew at any
    time.

    If it may be written, temporary files of it that killed commands left are removed. Those in a folder of ours stay:
    another machine that shares the folder may be writing them.
    """
    in_ours = any(is_ours(target.parent, kind) for kind in Kind)
    if target.exists() and not overwrite and not (in_ours and target.name in _DRAWN_FROM_A_SWEEP):
        raise DiskError(f"{option} {target} exists; give --overwrite to replace it, or choose another place")
    if not in_ours:
        remove_left_over(target)
