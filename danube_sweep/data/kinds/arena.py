"""Two answers to a prompt and which one people preferred, in the files of the LMSYS competition."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from danube_sweep.config.schema import Columns, Comparison, ExtraRows, Target, setting
from danube_sweep.data.arena_format import CLASSES, load_arena, read_arena
from danube_sweep.data.kind import ExtraKind
from danube_sweep.data.parts import parts_of_files
from danube_sweep.data.records import LabelledRows, Parts, Record


@dataclass
class ArenaData(Comparison, Columns, ExtraRows, ExtraKind):
    """Two answers to a prompt and which one people preferred, in the LMSYS competition's format."""

    known_classes: ClassVar[int | None] = len(CLASSES)

    soft_labels: bool = setting("the three winner columns are probabilities instead of 0 and 1", False)

    def load(self, target: Target) -> Parts:
        return parts_of_files(self, self._load(self.path, "data.path"), self._load)

    def _load(self, path: str, field: str) -> LabelledRows:
        return load_arena(path, soft_labels=self.soft_labels, group_column=self.group_column, field=field)

    def load_extra(self, path: str, target: Target, classes: list[str]) -> LabelledRows:
        return load_arena(path, soft_labels=True, group_column=self.group_column, field="data.extra")

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_arena(path, field)


OPTION = ArenaData
