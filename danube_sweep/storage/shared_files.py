"""Files that many trials of a sweep have in common, kept once: each trial has a hard link to the one copy.

A trial's folder is whole all the same. Whoever copies it copies the file.
"""

import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from danube_sweep.storage.files import abandoned, content_hash, link, remove_left_over

log = logging.getLogger(__name__)

FOLDER: Final = "tokenizers"
"""In a sweep's folder, the copies, each named by its content."""
_COPY: Final = re.compile(r"[0-9a-f]{32}(\.\w+)?")
LEAST_BYTES: Final = 4096
"""A smaller file takes up as much of the disk as a link's own block would save."""


def share(files: Iterable[Path], sweep: Path) -> None:
    """Replaces new files by links to equal ones that the sweep has; those that it lacks it has from now on.

    Where the file system has no links, or the disk no room, a file stays as it is.
    """
    store = sweep / FOLDER
    if store.is_symlink():
        return
    with suppress(OSError):
        store.mkdir(exist_ok=True)
    for file in files:
        if file.is_file() and file.stat().st_size >= LEAST_BYTES:
            try:
                _share(file, store)
            except OSError as error:
                log.warning("%s is not shared with the other trials of the sweep: %s", file, error)


def _share(file: Path, store: Path) -> None:
    digest = content_hash(file)
    kept = store / f"{digest[:32]}{file.suffix}"
    if not kept.is_file() or content_hash(kept) != digest:
        link(file, kept)  # none is there, or a damaged one
        return
    link(kept, file)


def remove_left_over_copies(sweep: Path) -> None:
    """Removes what processes that were killed on this machine left half-shared.

    A process of another machine whose link goes says so and keeps its own file.
    """
    store = sweep / FOLDER
    if store.is_dir() and not store.is_symlink():
        names = {abandoned(path.name) for path in store.iterdir()}
        for name in names:
            if name is not None and _COPY.fullmatch(name):
                remove_left_over(store / name)
