"""The checkpoints of a run as folders: their steps, and the removal of those that are not needed. No torch."""

import re
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import final

from danube_sweep.storage.files import abandoned, move
from danube_sweep.storage.ownership import give_back, remove_tree

MANIFEST = "checkpoint.json"
_STEP = re.compile(r"step-(\d{8})")


@final
class Checkpoints:
    """The checkpoints of one run, by step."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, step: int) -> Path:
        return self._root / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, in order."""
        sealed = (_STEP.fullmatch(file.parent.name) for file in self._root.glob(f"step-*/{MANIFEST}"))
        return sorted(int(named[1]) for named in sealed if named is not None)

    def set_aside(self, reason: str) -> Path:
        """Moves all of them to a folder beside theirs that is named for the reason. Raises DiskError."""
        first = self._root.with_name(f"{self._root.name}-{reason}")
        others = (first.with_name(f"{first.name}-{number}") for number in count(2))
        target = first if not first.exists() else next(one for one in others if not one.exists())
        move(self._root, target)
        return target

    def keep(self, steps: Collection[int | None]) -> None:
        """Removes the remains of interrupted writes and every checkpoint except those of `steps`. Nothing else is
        removed.
        """
        kept = {self.folder(step).name for step in steps if step is not None}
        for folder in self._root.iterdir():
            ours = _STEP.fullmatch(abandoned(folder.name) or folder.name)
            if ours and folder.name not in kept:
                remove_tree(folder)

    def clear(self) -> None:
        """Removes all of them, and the folder unless something else is in it."""
        if self._root.is_dir() and not self._root.is_symlink():
            self.keep(())
            give_back(self._root)
            with suppress(OSError):
                self._root.rmdir()
