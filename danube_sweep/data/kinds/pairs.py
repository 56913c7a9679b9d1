"""Two answers to a prompt in columns of plain text, and which one won."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from danube_sweep.config.require import require
from danube_sweep.config.schema import Columns, Comparison, ExtraRows, Target, setting
from danube_sweep.data.arena_format import probabilities
from danube_sweep.data.extra_columns import soft_columns
from danube_sweep.data.kind import ExtraKind
from danube_sweep.data.labels import ClassIndex, LabelNotes, label_text
from danube_sweep.data.parts import parts_of_files
from danube_sweep.data.read_files import Row, as_text, read_rows, row_id, rows_with_groups, some_lines
from danube_sweep.data.records import LabelledRows, Parts, Record
from danube_sweep.errors import DataError

TIE = "tie"


@dataclass
class PairsData(Comparison, Columns, ExtraRows, ExtraKind):
    """Two answers to a prompt in columns of plain text, and which one won, with or without ties."""

    prompt_column: str | None = setting("name of the prompt column; null for answers without a prompt", "prompt")
    a_column: str = setting("name of the column of answer A", "response_a")
    b_column: str = setting("name of the column of answer B", "response_b")
    label_column: str = setting("name of the column with the winner", "winner")
    a_label: str = setting("label if A won", "model_a")
    b_label: str = setting("label if B won", "model_b")
    tie_labels: list[str] = setting("labels of a tie, for example '[tie,\"tie (bothbad)\"]'; [] for no ties", [])
    id_column: str | None = setting("name of the id column; null numbers the rows", None)

    @property
    def label_name(self) -> str:
        return self.label_column

    @property
    def labels(self) -> list[str]:
        """The values of the label column: A won, B won, and each spelling of a tie."""
        return [self.a_label, self.b_label, *self.tie_labels]

    def check(self) -> None:
        labels = self.labels
        require(
            len(ClassIndex(labels)) == len(labels),
            f"data.a_label, data.b_label and data.tie_labels must all differ, got {', '.join(labels)}",
        )

    def load(self, target: Target) -> Parts:
        return parts_of_files(self, self._load(self.path, "data.path"), self._load)

    def _load(self, path: str, field: str) -> LabelledRows:
        return load_pairs(path, self, field=field)

    def load_extra(self, path: str, target: Target, classes: list[str]) -> LabelledRows:
        if soft_columns(path, self.label_column, classes):
            return _load_soft(path, self, classes)
        return load_pairs(path, self, field="data.extra")

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_pairs(path, self, field)


def pair_classes(data: PairsData) -> list[str]:
    """A won, B won and, where there are ties, a tie: two or three classes."""
    return [data.a_label, data.b_label, *([TIE] if data.tie_labels else [])]


def read_pairs(path: str | Path, data: PairsData, field: str = "data.path") -> Iterator[Record]:
    """The rows without their labels, one at a time. Raises DataError."""
    for number, row in enumerate(read_rows(path, _columns(data), field), 1):
        yield _record(number, row, data, None, f"{field}={path}")


def load_pairs(path: str | Path, data: PairsData, *, field: str = "data.path") -> LabelledRows:
    """The labelled rows. Raises DataError with the lines whose label the config does not name."""
    known, classes, notes = data.labels, pair_classes(data), LabelNotes(f"{field}={path}")
    index = ClassIndex(known)
    records: list[Record] = []
    wrong: list[int] = []
    rows = rows_with_groups(path, [*_columns(data), data.label_column], data.group_column, field)
    for number, (line, row) in enumerate(rows, 1):
        value = row[data.label_column]
        text = label_text(value)
        place = index.place(text)
        if place is None:
            wrong.append(line)
        else:
            notes.seen(line, value, text, known[place].strip())
        chosen = None if place is None else _one_hot(place, len(classes))
        record = _record(number, (line, row), data, chosen, f"{field}={path}")
        records.append(record if data.group_column is None else replace(record, group=as_text(row[data.group_column])))
    if wrong:
        raise DataError(
            f"{field}={path}: {some_lines(wrong)} whose {data.label_column} is not one of {', '.join(known)}; correct "
            "them, or set data.a_label, data.b_label and data.tie_labels"
        )
    return LabelledRows(records, classes, notes.lines())


def _load_soft(path: str, data: PairsData, classes: list[str]) -> LabelledRows:
    records: list[Record] = []
    wrong: list[int] = []
    rows = rows_with_groups(path, [*_columns(data), *classes], data.group_column, "data.extra")
    for number, (line, row) in enumerate(rows, 1):
        label = probabilities([row[name] for name in classes])
        if label is None:
            wrong.append(line)
        record = _record(number, (line, row), data, label, f"data.extra={path}")
        records.append(record if data.group_column is None else replace(record, group=as_text(row[data.group_column])))
    if wrong:
        raise DataError(
            f"data.extra={path}: {some_lines(wrong)} without a valid label; {', '.join(classes)} must be probabilities "
            "that sum to 1"
        )
    return LabelledRows(records, classes, [])


def _one_hot(place: int, classes: int) -> tuple[float, ...]:
    return tuple(float(min(place, 2) == number) for number in range(classes))  # every label of a tie is the third class


def _columns(data: PairsData) -> list[str]:
    columns = [data.prompt_column, data.a_column, data.b_column, data.id_column]
    return [name for name in columns if name is not None]


def _record(number: int, numbered: Row, data: PairsData, label: tuple[float, ...] | None, where: str) -> Record:
    _, row = numbered
    prompt = "" if data.prompt_column is None else as_text(row[data.prompt_column])
    answers = as_text(row[data.a_column]), as_text(row[data.b_column])
    # Without a prompt, a row and its copy in the other order are one group.
    group = prompt if data.prompt_column is not None else "\0".join(sorted(answers))
    return Record(row_id(numbered, data.id_column, number, where), (prompt, *answers), label, group)


OPTION = PairsData
