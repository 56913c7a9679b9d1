"""`predict --like`: a sample submission, whose columns, order and ids the output takes."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from danube_sweep.config.neutral_text import plain_cell
from danube_sweep.data.read_files import read_rows
from danube_sweep.errors import ConfigError, DataError
from danube_sweep.inference.predict_input import Input, id_text
from danube_sweep.inference.prediction_table import Table, same_id


@dataclass(frozen=True)
class Sample:
    """A sample submission: its columns as they stand, and its rows."""

    path: Path
    columns: list[str]
    rows: list[list[str]]

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"--like={self.path}"

    def arranged(self, table: Table, given: Input) -> "Arrangement":
        """How the rows of a table become those of the sample.

        Raises ConfigError for columns that do not match one to one, DataError for ids that do not.
        """
        if len(table.names) > 1:
            raise ConfigError(
                f"{self.where}: a sample submission orders rows, and this run answers words; leave it out"
            )
        place = self._id_place(given.id_column, table.answers)
        places = self._places(table, place)
        ids = [row[place] for row in self.rows]
        self._check_ids(ids, given)
        return Arrangement(self.columns, ids, places)

    def _id_place(self, id_column: str | None, answers: Sequence[str]) -> int:
        """The place of its id column: the input's id column, else one called id in any case, else the first.

        Columns with the name of a class are skipped.
        """
        free = [name for name in self.columns if name not in answers] or self.columns
        called = [name for name in free if name == id_column] + [name for name in free if name.lower() == "id"]
        return self.columns.index((called or free)[0])

    def _places(self, table: Table, id_place: int) -> list[int]:
        """For each column the place of its cell in a row of the table; the id is at 0."""
        columns = [name for place, name in enumerate(self.columns) if place != id_place]
        matched = {columns[0]: 0} if len(columns) == len(table.answers) == 1 else _matched(columns, table.answers)
        lacking = [name for name in columns if name not in matched]
        spare = [name for place, name in enumerate(table.answers) if place not in matched.values()]
        if lacking or spare:
            raise ConfigError(f"{self.where}: {_unmatched(lacking, spare, columns, table.answers)}")
        return [0 if place == id_place else matched[name] + 1 for place, name in enumerate(self.columns)]

    def _check_ids(self, ids: Sequence[str], given: Input) -> None:
        wanted, there = Counter(map(same_id, ids)), Counter(map(same_id, given.ids))
        source = f"{given.field}={given.path}"
        for counts, file in ((wanted, self.where), (there, source)):
            if twice := [name for name, count in counts.items() if count > 1]:
                raise DataError(f"{file}: {_some(twice)} there more than once; --like needs ids that differ")
        if lacking := [name for name in wanted if name not in there]:
            raise DataError(f"{self.where}: {_some(lacking)} not in {source}; give the file that the sample is of")
        if spare := [name for name in there if name not in wanted]:
            raise DataError(f"{source}: {_some(spare)} not in {self.where}; give the sample of this file")


@dataclass(frozen=True)
class Arrangement:
    """The header of a sample, its ids in order, and for each of its columns the place of the cell in our row."""

    header: list[str]
    ids: list[str]
    places: list[int]


def read_sample(path: Path) -> Sample:
    """Reads a sample submission. Raises DataError for a file that cannot be read or has one column only."""
    rows = [row for _, row in read_rows(path, [], "--like")]
    columns = list(rows[0]) if rows else []
    if len(columns) < 2:
        raise DataError(f"--like={path}: it needs rows with an id and a column for each answer, like id,label")
    return Sample(path, columns, [[id_text(row.get(name)) for name in columns] for row in rows])


def _matched(columns: Sequence[str], answers: Sequence[str]) -> dict[str, int]:
    """The place in `answers` of each column with the same name.

    Names are compared exactly, then as our csv spells them, then without case and signs, then without `winner_`.
    """
    matched: dict[str, int] = {}
    for reading in (str, plain_cell, _folded, _without_winner):
        free = [place for place in range(len(answers)) if place not in matched.values()]
        open_columns = [name for name in columns if name not in matched]
        matched |= _matched_by(reading, open_columns, {place: answers[place] for place in free})
    return matched


def _matched_by(reading: Callable[[str], str], columns: Sequence[str], answers: dict[int, str]) -> dict[str, int]:
    found = Counter(map(reading, columns))
    places: dict[str, list[int]] = {}
    for place, name in answers.items():
        places.setdefault(reading(name), []).append(place)
    return {
        name: places[reading(name)][0]
        for name in columns
        if found[reading(name)] == 1 and len(places.get(reading(name), ())) == 1
    }


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _without_winner(name: str) -> str:
    return _folded(name).removeprefix("winner")


def _unmatched(lacking: list[str], spare: list[str], columns: list[str], answers: list[str]) -> str:
    if len(columns) == 1 < len(answers):
        return f"its column {columns[0]!r} holds one answer a row, and this run has {len(answers)}; give --labels"
    if len(answers) == 1 < len(columns):
        return f"its columns are {', '.join(columns)}, and the answer is one ({answers[0]}); leave --labels out"
    said = [
        *([f"no class for its column{'s' * (len(lacking) > 1)} {_few(lacking)}"] if lacking else []),
        *([f"no column for the class{'es' * (len(spare) > 1)} {_few(spare)}"] if spare else []),
    ]
    return f"{' and '.join(said)}; the run's classes are {_few(answers)}: rename the columns of the sample"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _some(names: Sequence[str]) -> str:
    """`1 id (a) is`, `12 ids (a, b, c, …) are`."""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} ids ({shown}) are" if len(names) > 1 else f"1 id ({shown}) is"
