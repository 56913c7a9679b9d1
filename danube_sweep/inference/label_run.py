"""Soft labels for more training rows: a file's rows with the probabilities that a finished run gives them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from danube_sweep.errors import ConfigError
from danube_sweep.inference.predict_run import PredictWords, predict_run

if TYPE_CHECKING:
    from danube_sweep.config.schema import Data
    from danube_sweep.inference.divided import Devices
    from danube_sweep.inference.predict import FinishedRun, Request
    from danube_sweep.inference.prediction_table import Predictions


def label_run(words: PredictWords, devices: "Devices | None" = None) -> int:
    """Writes a csv that `data.extra` reads: id, texts and a column per class; returns the number of rows.

    Raises as `predict_run` does, and UserError for a run whose answers are no labels of rows.
    """
    if words.target.suffix.lower() != ".csv":
        raise ConfigError(f"-o {words.target}: soft labels are written as a csv; give a name that ends in .csv")
    return predict_run(words, _with_texts, devices)


def _with_texts(run: "FinishedRun", request: "Request") -> "Request":
    """The request with a table that has the texts of each row between its id and its probabilities."""
    from danube_sweep.config.schema import Labelled
    from danube_sweep.data.read_files import as_text, read_rows
    from danube_sweep.inference.predict_input import FIELD

    data, table, path = run.config.data, request.table, request.input.path
    if data.labelled is not Labelled.rows:
        raise ConfigError(f"{run.path} labels words, and data.extra takes labels of rows; give a run with another head")
    texts, where = _text_columns(data), f"{FIELD}={path}"
    _, first = next(read_rows(path, texts, FIELD))
    group, notes = _group(data, list(first), [*table.names, *texts], where)
    columns = [*texts, *group]
    if clash := [name for name in table.answers if name in columns]:
        raise ConfigError(f"{where}: the class {clash[0]!r} has the name of a column that is copied; rename the column")
    if labelled := [name for name in dict.fromkeys([data.label_name, *table.answers]) if name in first]:
        said = ", ".join(map(repr, labelled[:5])) + (", …" if len(labelled) > 5 else "")
        notes.append(f"{where}: it has labels already ({said}), which are neither read nor copied")
    source = read_rows(path, columns, FIELD)

    def rows(found: "Predictions", before: int) -> Iterator[list[str]]:
        for cells in table.rows(found, before):
            _, row = next(source)
            yield [cells[0], *(as_text(row[name]) for name in columns), *cells[1:]]

    return replace(
        request, table=replace(table, names=[*table.names, *columns], rows=rows), notes=[*request.notes, *notes]
    )


def _text_columns(data: "Data") -> list[str]:
    """The columns whose texts a run reads."""
    from danube_sweep.config.schema import TableColumns
    from danube_sweep.data.arena_format import TEXTS
    from danube_sweep.data.kinds.pairs import PairsData

    match data:
        case PairsData():
            return [name for name in (data.prompt_column, data.a_column, data.b_column) if name is not None]
        case TableColumns():
            return [data.text_column]
        case _:  # the competition's format
            return list(TEXTS)


def _group(data: "Data", there: list[str], copied: list[str], where: str) -> tuple[list[str], list[str]]:
    """The column of groups, if the file has it and it is not copied already, and a note if it is missing."""
    from danube_sweep.config.schema import Columns

    name = data.group_column if isinstance(data, Columns) else None
    if name is None or name in copied:
        return [], []
    if name in there:
        return [name], []
    return [], [
        f"{where}: no column {name!r} (data.group_column), which data.extra needs with data.group_column={name}"
    ]
