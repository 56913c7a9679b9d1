"""Running text for language modelling: a text a row, from any number of files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from danube_sweep.config.require import require
from danube_sweep.config.schema import Columns, Labelled, Target, setting
from danube_sweep.data.kind import DataKind, DataSize
from danube_sweep.data.parts import refuse_training_files, some
from danube_sweep.data.read_files import as_text, refuse_missing, rows_with_groups
from danube_sweep.data.records import Parts, Record
from danube_sweep.data.size import CHARACTERS_PER_TOKEN, Hashed, training_share
from danube_sweep.data.split import split
from danube_sweep.errors import DataError


@dataclass
class TextData(Columns, DataKind):
    """Running text for language modelling, cut into pieces of max_length tokens."""

    labelled: ClassVar[Labelled] = Labelled.nothing

    # Any: a path or a list of paths, which Hydra's schemas cannot say; after construction it is a list.
    path: Any = setting(
        "text file, or a list of them: jsonl, csv, tsv or parquet; all but parquet may be gzipped", path="files"
    )
    validation_path: Any = setting(
        "validation file, or a list of them; null splits the training texts", None, path="files"
    )
    text_column: str = setting("name of the text column", "text")

    def __post_init__(self) -> None:
        self.path = _listed(self.path)
        self.validation_path = _listed(self.validation_path)

    def check(self) -> None:
        require(self.path != [], "data.path needs at least one file, got []")
        for name in ("path", "validation_path"):
            files = getattr(self, name)
            named = isinstance(files, list) and all(isinstance(file, str) for file in files)
            optional = name == "validation_path" and files is None
            require(named or optional, f"data.{name} must be a file or a list of files, got {files}")
        require(self.test_fraction == 0, "data.test_fraction: data=text has no test part; give 0")

    def load(self, target: Target) -> Parts:
        train, validation, _ = split(some(load_text(self.path, self), "data.path"), self)
        if self.validation_path is not None:
            refuse_training_files(self.path, self.validation_path)
            validation = load_text(self.validation_path, self, "data.validation_path")
            validation = some(validation, "data.validation_path")
        return Parts(train, validation, [], [])

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        raise DataError("head=lm predicts no classes; predict with a run of another head")

    def size(self) -> DataSize | None:
        files = [Path(path).expanduser() for path in self.path]
        if not all(file.is_file() for file in files):
            return None
        changed = tuple(file.stat().st_mtime_ns for file in files)
        tokens = _characters(Hashed(self), changed) / CHARACTERS_PER_TOKEN
        pieces = max(1, round(tokens * training_share(self) / self.max_length))
        return DataSize(min(pieces, self.max_rows or pieces), self.max_length)


def _listed(path: Any) -> Any:
    return [path] if isinstance(path, str) and path != MISSING else path


@lru_cache(maxsize=16)
def _characters(reader: Hashed, _changed_ns: tuple[int, ...]) -> int:
    assert isinstance(reader.config, TextData)
    return sum(len(record.texts[0]) for record in load_text(reader.config.path, reader.config))


def load_text(paths: Sequence[str], data: TextData, field: str = "data.path") -> list[Record]:
    """The texts of all files, numbered through. Raises DataError, also with the lines whose text is null."""
    records: list[Record] = []
    for path in paths:
        rows = rows_with_groups(path, [data.text_column], data.group_column, field)
        refuse_missing(
            f"{field}={path}", data.text_column, [line for line, row in rows if row[data.text_column] is None]
        )
        for _, row in rows:
            text = as_text(row[data.text_column])
            group = text if data.group_column is None else as_text(row[data.group_column])
            records.append(Record(str(len(records) + 1), (text,), None, group))
    return records


OPTION = TextData
