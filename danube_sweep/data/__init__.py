"""Data in: files or generated rows become records in three parts, and records become batches of tokens.

records  a row in one form · read  strict files · hub  rows of a `datasets` data set
arena, pairs, table, words, text, generated  the kinds of data · split  parts by group, folds
layout, encode, pieces, encoded  tokens, cached · batches  the order of an epoch, padding
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from danube_sweep.config.schema import (
    ArenaData,
    Data,
    FileData,
    GeneratedData,
    HubData,
    PairsData,
    TableColumns,
    TableData,
    Target,
    TextData,
    TokensData,
)
from danube_sweep.data.kinds.arena import CLASSES, load_arena, read_arena
from danube_sweep.data.kinds.generated import bayes_log_loss, generate
from danube_sweep.data.kinds.hub import reader
from danube_sweep.data.kinds.pairs import load_pairs, pair_classes, read_pairs, swapped
from danube_sweep.data.kinds.table import is_number, load_table, read_table
from danube_sweep.data.kinds.text import load_text
from danube_sweep.data.kinds.tokens import load_words, read_words
from danube_sweep.data.records import Parts, Record
from danube_sweep.data.split import split
from danube_sweep.errors import DataError, GuardError

__all__ = ["Parts", "Record", "load_parts", "load_undivided", "read_unlabelled", "swapped"]


def load_parts(config: Data, target: Target = Target.one) -> Parts:
    """What a trial trains on, is chosen on and is scored on; `max_rows` cuts each part to its first rows.

    `target`: what its head learns of a row, where a file can be read in several ways.

    Raises DataError for anything wrong in the files and when a part has no rows.
    """
    match config:
        case ArenaData():
            return _from_arena(config)
        case PairsData():
            return _from_pairs(config)
        case TableData():
            return _from_table(config, target)
        case TokensData():
            return _from_words(config)
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
            return _from_hub(config, target)
    raise GuardError(f"no loader for {type(config).__name__}")


def load_undivided(config: Data, target: Target = Target.one) -> list[Record]:
    """The rows that training and validation parts are made of, all of them, in the order of the file.

    Raises what `load_parts` raises.
    """
    whole = replace(config, folds=None, fold=None, stratified=False, validation_fraction=0.0, max_rows=None)
    return load_parts(whole, target).train


def read_unlabelled(config: Data, path: str | Path, field: str = "input") -> Iterator[Record]:
    """The rows of a file to predict, one at a time; labels are neither needed nor read.

    Generated data is predicted from files in the arena format. Raises DataError, also for a file without rows.
    """
    match config:
        case ArenaData() | GeneratedData():
            rows = read_arena(path, field)
        case PairsData():
            rows = read_pairs(path, config, field)
        case TableColumns():
            rows = read_table(path, config, field)
        case TokensData():
            rows = read_words(path, config, field)
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


def _from_pairs(config: PairsData) -> Parts:
    def load(path: str, field: str) -> list[Record]:
        return load_pairs(path, config, field=field)

    return _from_files(config, load(config.path, "data.path"), load, pair_classes(config))


def _from_table(config: TableData, target: Target) -> Parts:
    # The classes are those of the whole training file: a rare one may fall into the validation part alone.
    records, classes = load_table(config.path, config, target, classes=config.classes)
    if target is not Target.number:
        _check_classes(config, classes, target)

    def load(path: str, field: str) -> list[Record]:
        return load_table(path, config, target, classes=classes, field=field)[0]

    return _from_files(config, records, load, classes)


def _from_words(config: TokensData) -> Parts:
    records, classes = load_words(config.path, config, classes=config.classes)
    _check_classes(config, classes, Target.words)

    def load(path: str, field: str) -> list[Record]:
        return load_words(path, config, classes=classes, field=field)[0]

    return _from_files(config, records, load, classes)


def _check_classes(config: TableData | HubData | TokensData, classes: list[str], target: Target) -> None:
    where = f"data.path={config.path}"
    if not classes:
        raise DataError(f"{where}: no row has a class; give rows with at least one")
    if len(classes) == 1 and target is not Target.many:
        raise DataError(f"{where}: its only class is {classes[0]!r}; give rows of at least two classes")
    if target is Target.ordered and config.classes is None and not all(map(is_number, classes)):
        other = next(name for name in classes if not is_number(name))
        raise DataError(f"{where}: head=ordinal needs classes in order, and {other!r} is no number: list data.classes")


def _from_hub(config: HubData, target: Target) -> Parts:
    def load(split: str, field: str, classes: list[str] | None) -> tuple[list[Record], list[str]]:
        return load_table(split, config, target, classes=classes, field=field, read=reader(config, split))

    records, classes = load(config.split, "data.split", config.classes)
    if target is not Target.number:
        _check_classes(config, classes, target)
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
