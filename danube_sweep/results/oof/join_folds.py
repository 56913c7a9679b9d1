"""The validation predictions of all folds as one table: every example once, in the order of the data file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from danube_sweep.config.schema import Target
from danube_sweep.data.encoded import Truth
from danube_sweep.data.records import Record
from danube_sweep.errors import CheckpointError, DataError
from danube_sweep.results.answers import answers_of
from danube_sweep.results.ensemble.members import losses, parts_as_answered
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import GROUP, ID, LOSS, WEIGHT, class_names, floats, is_answer
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.metrics import measure


def read_predictions(file: Path) -> "pa.Table":
    """The predictions of one run, their ids as text. Raises CheckpointError if they are missing or damaged."""
    try:
        table = predictions.read(file)
        place = table.column_names.index(ID)
        numbers = [name for name in table.column_names if is_answer(name) or name in (LOSS, WEIGHT)]
        if LOSS not in numbers or not any(is_answer(name) or name == WEIGHT for name in numbers):
            raise KeyError("no losses or answers")
        return table.set_column(place, ID, table[ID].cast(pa.string()))
    except predictions.DAMAGED as error:
        raise CheckpointError(f"{file} is missing or damaged; run the trial again") from error


def join(seeds: Sequence[Sequence[RunFolder]], records: Sequence[Record], *, whole: bool) -> "pa.Table":
    """The predictions of every fold, averaged over the seeds, in the order of `records`.

    `whole`: every record must have been predicted. Raises CheckpointError for files that are damaged or of other rows,
    DataError for ids that do not tell rows apart.
    """
    parts = [_averaged([read_predictions(run.predictions) for run in fold]) for fold in zip(*seeds, strict=True)]
    if any(GROUP in part.column_names for part in parts):
        parts = _apart(parts)
    if any(part.column_names != parts[0].column_names for part in parts):
        raise CheckpointError("the folds have other classes; run them again over the same data")
    return in_order(pa.concat_tables(parts), records, whole=whole)


def in_order(found: "pa.Table", records: Sequence[Record], *, whole: bool) -> "pa.Table":
    """Predictions in the order of `records`; `whole` and errors as in `join`."""
    return found.take(_order(found[ID].to_pylist(), records, whole=whole))


def _apart(parts: Sequence["pa.Table"]) -> list["pa.Table"]:
    """The folds with group numbers, of which none is in two folds. In a fold without groups, each row is its own."""
    found, first = [], 0
    for part in parts:
        if GROUP in part.column_names:
            place = part.column_names.index(GROUP)
            codes_N, part = np.unique(part[GROUP].to_numpy(), return_inverse=True)[1], part.remove_column(place)
        else:
            codes_N = np.arange(part.num_rows)
        found.append(part.add_column(1, GROUP, pa.array(codes_N.astype(np.int64) + first)))
        first += int(codes_N.max(initial=-1)) + 1
    return found


def _averaged(parts: Sequence["pa.Table"]) -> "pa.Table":
    first = parts[0]
    if any(part.column_names != first.column_names or not part[ID].equals(first[ID]) for part in parts):
        raise CheckpointError("two seeds of a fold have other validation rows or classes; run them again")
    for place, name in enumerate(first.column_names):
        if len(parts) > 1 and (is_answer(name) or name == LOSS):
            first = first.set_column(place, name, pa.array(np.mean([floats(part, name) for part in parts], axis=0)))
    return first if len(parts) == 1 else _with_loss(first)


def _with_loss(averaged: "pa.Table") -> "pa.Table":
    # The loss of the mean answer, which is not the mean of the losses. Classes of words stay with that.
    answers = answers_of(averaged)
    if isinstance(answers, str) or (answers.probabilities_NC is None and answers.numbers_N is None):
        return averaged
    mean_N = losses(parts_as_answered(answers), numbers=answers.numbers_N is not None)
    return averaged.set_column(averaged.column_names.index(LOSS), LOSS, pa.array(mean_N))


def _order(ids: Sequence[str], records: Sequence[Record], *, whole: bool) -> list[int]:
    """Where each of the sorted rows stands in `ids`; a piece of a text, `<id>:<number>`, stands with its text."""
    places = {record.id: place for place, record in enumerate(records)}
    for names in (ids, [record.id for record in records]):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(f"data: the id {name!r} is there {count} times; give ids that tell the rows apart, or none")
    keys = []
    for name in ids:
        text, _, piece = name.rpartition(":")
        if name not in places and not (text in places and piece.isdecimal()):
            raise CheckpointError(f"the predictions have a row {name!r} that the data lack; run the trials again")
        keys.append((places[name], 0) if name in places else (places[text], int(piece)))
    if whole and len(ids) < len(records):
        lost = min(set(places) - set(ids), key=places.__getitem__, default="")
        raise CheckpointError(f"no fold has predicted the row {lost!r}; run the trials again")
    return sorted(range(len(ids)), key=keys.__getitem__)


def score_joined(found: "pa.Table", target: Target, records: Sequence[Record]) -> dict[str, float]:
    """The metrics of the head over all examples, against the labels of the records."""
    names = [name for name in found.column_names if is_answer(name)]
    answers_NA = torch.from_numpy(np.stack([floats(found, name) for name in names], axis=1)) if names else None
    losses_N = torch.from_numpy(floats(found, LOSS).copy())
    return measure(target, class_names(names), answers_NA, losses_N, _truth(found, target, records))


def _truth(found: "pa.Table", target: Target, records: Sequence[Record]) -> Truth:
    ids: list[str] = found[ID].to_pylist()
    labels = {record.id: record.label for record in records}
    ones = np.ones(len(ids), dtype=np.float32)
    if target is Target.nothing:
        return Truth(np.zeros((len(ids), 0), dtype=np.float32), floats(found, WEIGHT).astype(np.float32))
    if target is Target.words:
        split: list[Any] = [name.rpartition(":") for name in ids]
        places = [(labels[text] or ())[int(number)] for text, _, number in split]
        starts = np.array([number == "0" for _, _, number in split])
        return Truth(np.array(places, dtype=np.float32).reshape(-1, 1), ones, starts)
    return Truth(np.array([labels[name] for name in ids], dtype=np.float32), ones)
