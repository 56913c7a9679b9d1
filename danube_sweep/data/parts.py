"""The parts of a trial's data: training, validation and test."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.schema import Data, FileData, Target
from danube_sweep.data.extra_rows import with_extra
from danube_sweep.data.kind import DataKind
from danube_sweep.data.records import LabelledRows, Parts, Record
from danube_sweep.data.sample import sampled
from danube_sweep.data.split import split
from danube_sweep.errors import DataError, GuardError


def load_parts(config: Data, target: Target = Target.one) -> Parts:
    """The training, validation and test rows; `max_rows` draws some of each part.

    The rows of `data.extra` stand beside them.
    `target`: the head's kind of answer, for files that can be read in several ways.

    Raises DataError for anything wrong in the files and when a part has no rows.
    """
    found = _kind(config).load(target)
    if config.train_on_validation:  # so that its rows are no longer held out
        own = [*sampled(found.train, config), *sampled(found.validation, config)]
        test = sampled(found.test, config)
        return replace(with_extra(replace(found, validation=[]), config, target), train=own, test=test)
    found = with_extra(found, config, target)
    train, validation, test = (sampled(part, config) for part in (found.train, found.validation, found.test))
    return replace(found, train=train, validation=validation, test=test)


def load_undivided(config: Data, target: Target = Target.one) -> list[Record]:
    """The rows that training and validation parts are made of, all of them, in the order of the file.

    Raises the errors of `load_parts`.
    """
    whole = replace(
        config,
        folds=None,
        fold=None,
        stratified=False,
        validation_fraction=0.0,
        max_rows=None,
        train_on_validation=False,
    )
    return _kind(whole).load(target).train


def read_unlabelled(config: Data, path: str | Path, field: str = "input") -> Iterator[Record]:
    """The rows of a file to predict, one at a time; labels are neither needed nor read.

    Generated data is predicted from files in the arena format. Raises DataError, also for a file without rows.
    """
    return _at_least_one(_kind(config).read_unlabelled(path, field), f"{field}={path}")


def _kind(config: Data) -> DataKind:
    if not isinstance(config, DataKind):
        raise GuardError(f"{type(config).__name__} cannot be read: it is not a DataKind")
    return config


def _at_least_one(rows: Iterator[Record], where: str) -> Iterator[Record]:
    empty = True
    for record in rows:
        empty = False
        yield record
    if empty:
        raise DataError(f"{where}: it has no rows; give a file with rows")


# ------------------------------------------------------------------------------------------- for the kinds of data


def parts_of_files(config: FileData, found: LabelledRows, load: Callable[[str, str], LabelledRows]) -> Parts:
    """The parts of the training file's rows; `load(path, field)` reads a part that has a file of its own."""
    train, validation, test = split(some(found.records, "data.path"), config, found.classes)
    notes = list(found.notes)
    if config.validation_path is not None:
        refuse_training_files([config.path], [config.validation_path])
        own = load(config.validation_path, "data.validation_path")
        validation, notes = some(own.records, "data.validation_path"), [*notes, *own.notes]
    if config.test_path is not None:
        own = load(config.test_path, "data.test_path")
        test, notes = some(own.records, "data.test_path"), [*notes, *own.notes]
    return Parts(train, validation, test, found.classes, notes=notes)


def refuse_training_files(training: Sequence[str], validation: Sequence[str]) -> None:
    """Raises DataError for a validation file with the content of a training file: its loss would say nothing."""
    known = {file_digest(path, "data.path"): path for path in training}
    for path in validation:
        if (same := known.get(file_digest(path, "data.validation_path"))) is not None:
            raise DataError(
                f"data.validation_path={path} has the rows of data.path={same}: a model is not validated on rows that "
                "it trains on; give other rows, or train without validation by data.validation_path=null and "
                "data.validation_fraction=0"
            )


def some(records: list[Record], field: str) -> list[Record]:
    """The records. Raises DataError, naming the field, if there are none."""
    if not records:
        raise DataError(f"{field}: the file has no rows; give one with rows")
    return records
