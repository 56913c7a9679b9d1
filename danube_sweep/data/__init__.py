"""Data in: files or generated rows become records in three parts, and records become batches of tokens.

records  a row in one form · read  strict files · arena, table, text, generated  the four kinds of data
hub  rows of a `datasets` data set · split  parts by group, folds · encode  tokens, cached
batches  the order of an epoch, padding
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from danube_sweep.data.arena import CLASSES, load_arena, read_arena, swapped
from danube_sweep.data.generated import bayes_log_loss, generate
from danube_sweep.data.hub import reader
from danube_sweep.data.records import Parts, Record
from danube_sweep.data.split import split
from danube_sweep.data.table import load_table, read_table
from danube_sweep.data.text import load_text
from danube_sweep.errors import DataError, GuardError
from danube_sweep.schema import ArenaData, Data, FileData, GeneratedData, HubData, TableData, TextData

__all__ = ["Parts", "Record", "load_parts", "load_undivided", "read_unlabelled", "swapped"]


def load_parts(config: Data) -> Parts:
    """What a trial trains on, is chosen on and is scored on; `max_rows` cuts each part to its first rows.

    Raises DataError for anything wrong in the files and when a part has no rows.
    """
    match config:
        case ArenaData():
            return _from_arena(config)
        case TableData():
            return _from_table(config)
        case GeneratedData():
            records = generate(config.rows, config.seed, config.noise)
            return _parts(split(records, config), config, list(CLASSES), bayes_log_loss(config.noise))
        case TextData():
            train, validation, _ = split(_some(load_text(config.path, config.text_column), "data.path"), config)
            if config.validation_path is not None:
                validation = load_text(config.validation_path, config.text_column, "data.validation_path")
                validation = _some(validation, "data.validation_path")
            return _parts((train, validation, []), config, [])
        case HubData():
            return _from_hub(config)
    raise GuardError(f"no loader for {type(config).__name__}")


def load_undivided(config: Data) -> list[Record]:
    """The rows that training and validation parts are made of, all of them, in the order of the file.

    Raises what `load_parts` raises.
    """
    whole = replace(config, folds=None, fold=None, stratified=False, validation_fraction=0.0, max_rows=None)
    return load_parts(whole).train


def read_unlabelled(config: Data, path: str | Path, field: str = "input") -> Iterator[Record]:
    """The rows of a file to predict, one at a time; labels are neither needed nor read.

    Generated data is predicted from files in the arena format. Raises DataError, also for a file without rows.
    """
    match config:
        case ArenaData() | GeneratedData():
            rows = read_arena(path, field)
        case TableData() | HubData():
            rows = read_table(path, config, field)
        case TextData():
            raise DataError("head=lm predicts no classes; predict with a trial of another head")
        case _:
            raise GuardError(f"no reader for {type(config).__name__}")
    return _at_least_one(rows, f"{field}={path}")


def _at_least_one(rows: Iterator[Record], where: str) -> Iterator[Record]:
    empty = True
    for record in rows:
        empty = False
        yield record
    if empty:
        raise DataError(f"{where}: it has no rows; give a file with rows")


Loader = Callable[[str, str], list[Record]]


def _from_arena(config: ArenaData) -> Parts:
    def load(path: str, field: str) -> list[Record]:
        return load_arena(path, soft_labels=config.soft_labels, field=field)

    return _from_files(config, load(config.path, "data.path"), load, list(CLASSES))


def _from_table(config: TableData) -> Parts:
    # The classes are those of the whole training file: a rare one may fall into the validation part alone.
    records, classes = load_table(config.path, config, classes=config.classes)
    if len(classes) == 1:
        raise DataError(f"data.path={config.path}: its only class is {classes[0]!r}; give rows of at least two classes")

    def load(path: str, field: str) -> list[Record]:
        return load_table(path, config, classes=classes, field=field)[0]

    return _from_files(config, records, load, classes)


def _from_hub(config: HubData) -> Parts:
    def load(split: str, field: str, classes: list[str] | None) -> tuple[list[Record], list[str]]:
        return load_table(split, config, classes=classes, field=field, read=reader(config, split))

    records, classes = load(config.split, "data.split", config.classes)
    train, validation, test = split(_some(records, "data.split"), config)
    if config.validation_split is not None:
        validation, _ = load(config.validation_split, "data.validation_split", classes)
    if config.test_split is not None:
        test, _ = load(config.test_split, "data.test_split", classes)
    return _parts((train, validation, test), config, classes)


def _from_files(config: FileData, records: list[Record], load: Loader, classes: list[str]) -> Parts:
    train, validation, test = split(_some(records, "data.path"), config)
    if config.validation_path is not None:
        validation = _some(load(config.validation_path, "data.validation_path"), "data.validation_path")
    if config.test_path is not None:
        test = _some(load(config.test_path, "data.test_path"), "data.test_path")
    return _parts((train, validation, test), config, classes)


def _some(records: list[Record], field: str) -> list[Record]:
    if not records:
        raise DataError(f"{field}: the file has no rows; give one with rows")
    return records


def _parts(
    parts: tuple[list[Record], list[Record], list[Record]],
    config: Data,
    classes: list[str],
    bayes: float | None = None,
) -> Parts:
    train, validation, test = (part[: config.max_rows] for part in parts)
    return Parts(train, validation, test, classes, bayes)
