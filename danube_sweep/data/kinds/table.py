"""One text and one label a row, from the columns of files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from danube_sweep.config.schema import ExtraRows, TableColumns, Target
from danube_sweep.data.extra_columns import soft_columns
from danube_sweep.data.kind import ExtraKind
from danube_sweep.data.parts import parts_of_files
from danube_sweep.data.records import LabelledRows, Parts, Record
from danube_sweep.data.table_columns import check_classes, load_table, read_table


@dataclass
class TableData(TableColumns, ExtraRows, ExtraKind):
    """One text and one label a row."""

    def load(self, target: Target) -> Parts:
        # The classes are those of the whole training file: a rare one may fall into the validation part alone.
        found = load_table(self.path, self, target, classes=self.classes)
        if target is not Target.number:
            check_classes(f"data.path={self.path}", found.classes, target, ordered_by_config=self.classes is not None)

        def load(path: str, field: str) -> LabelledRows:
            return load_table(path, self, target, classes=found.classes, field=field)

        return parts_of_files(self, found, load)

    def load_extra(self, path: str, target: Target, classes: list[str]) -> LabelledRows:
        soft = target is not Target.number and soft_columns(path, self.label_column, classes)
        reader = replace(self, soft_label_columns=list(classes) if soft else None)
        return load_table(path, reader, target, classes=classes, field="data.extra")

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_table(path, self, field)


OPTION = TableData
