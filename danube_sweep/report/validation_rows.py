"""Single validation rows: those that the best trial got most wrong, wavers at, or answers unlike the other trials.

Shapes: N rows, C classes, T trials.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from danube_sweep.config.schema import Config, ExtraRows
from danube_sweep.config.stored import load_config
from danube_sweep.errors import DataError, UserError
from danube_sweep.results.trial_results import StoredTrial
from danube_sweep.storage import predictions
from danube_sweep.storage.made_here import made_here
from danube_sweep.storage.predictions import LABEL, LOSS, PREDICTION, Classified, floats

_EACH: Final = 12
"""Rows of each list."""
_MOST_TRIALS: Final = 60
"""Trials that can be put side by side: those of the first rows of the ranking."""
_MOST_BYTES: Final = 2**27
"""A larger data file is not read again for its texts."""


@dataclass(frozen=True)
class TrialAnswers:
    """One trial's answers to some validation rows."""

    key: str
    """Of its row on the page."""
    trial: str
    losses: list[float]
    answers: list[str]
    """`A 0.71, B 0.20`: the likeliest classes with their probabilities, or the number; empty in language modelling."""


@dataclass(frozen=True)
class ValidationRows:
    """Some validation rows, and what trials answered."""

    ids: list[str]
    labels: list[str]
    texts: list[str] | None
    """None where the data is no longer there as it was read, or may not be read."""
    no_texts: str
    """Why there are no texts."""
    worst: list[int]
    """Places in `ids`, by falling loss of the best trial."""
    disputed: list[int]
    """Places of the rows whose two likeliest classes are closest in the best trial; empty without classes."""
    unlike: list[int]
    """Places of the rows whose loss differs most between the trials; empty for a single trial."""
    trials: list[TrialAnswers] = field(default_factory=list)
    """The best trial first."""


@dataclass(frozen=True)
class _Read:
    """predictions.parquet of a trial."""

    key: str
    trial: StoredTrial
    ids: list[str]
    losses_N: NDArray[np.float64]
    classified: Classified | None
    table: Any


def validation_rows(trials: Sequence[tuple[str, StoredTrial]]) -> ValidationRows | None:
    """The rows worth a look in trials with the key of their row on the page, the best trial first.

    None without a trial whose predictions can be read.
    """
    if not trials or (first := _read(*trials[0])) is None or not first.ids:
        return None
    others = trials[1:_MOST_TRIALS]
    alike = [found for one in others if (found := _read(*one)) is not None and found.ids == first.ids]
    worst = np.argsort(-first.losses_N, kind="stable")[:_EACH]
    disputed, unlike = _disputed(first.classified), _unlike([first, *alike])
    chosen = list(dict.fromkeys([*worst.tolist(), *disputed.tolist(), *unlike.tolist()]))
    place = {row: number for number, row in enumerate(chosen)}
    truths = _truths(first)
    texts, why = _texts(first, truths, chosen)
    return ValidationRows(
        ids=[first.ids[row] for row in chosen],
        labels=[truths[row] for row in chosen],
        texts=texts,
        no_texts=why,
        worst=[place[row] for row in worst.tolist()],
        disputed=[place[row] for row in disputed.tolist()],
        unlike=[place[row] for row in unlike.tolist()],
        trials=[_answers(one, chosen) for one in (first, *alike)],
    )


def _read(key: str, trial: StoredTrial) -> _Read | None:
    try:
        table = predictions.read(trial.folder.predictions)
        ids = [str(name) for name in table[predictions.ID].to_pylist()]
        return _Read(key, trial, ids, floats(table, LOSS), predictions.classified(table), table)
    except predictions.DAMAGED:
        return None


def _disputed(found: Classified | None) -> NDArray[np.int64]:
    if found is None or len(found.classes) < 2:
        return np.zeros(0, dtype=np.int64)
    ordered_NC = np.sort(found.probabilities_NC, axis=1)
    return np.argsort(ordered_NC[:, -1] - ordered_NC[:, -2], kind="stable")[:_EACH]


def _unlike(read: Sequence[_Read]) -> NDArray[np.int64]:
    if len(read) < 2:
        return np.zeros(0, dtype=np.int64)
    losses_TN = np.stack([one.losses_N for one in read])
    return np.argsort(-losses_TN.std(axis=0), kind="stable")[:_EACH]


def _truths(found: _Read) -> list[str]:
    names = found.table.column_names
    if LABEL in names:
        return [f"{value:.6g}" if isinstance(value, float) else str(value) for value in found.table[LABEL].to_pylist()]
    if (several := predictions.several(found.table)) is not None:
        classes = predictions.class_names(names)
        held_NC = several[0] >= 0.5
        return [", ".join(name for name, held in zip(classes, row, strict=True) if held) or "none" for row in held_NC]
    return [""] * len(found.ids)


def _answers(found: _Read, chosen: Sequence[int]) -> TrialAnswers:
    losses = [round(float(found.losses_N[row]), 3) for row in chosen]
    return TrialAnswers(found.key, found.trial.name, losses, [_answer(found, row) for row in chosen])


def _answer(found: _Read, row: int) -> str:
    names = found.table.column_names
    if PREDICTION in names:
        return f"{found.table[PREDICTION][row].as_py():.4g}"
    classes = predictions.class_names(names)
    if not classes:
        return ""
    if found.classified is not None:
        sure_C = found.classified.probabilities_NC[row]
    else:
        sure_C = np.array([found.table[predictions.probability(name)][row].as_py() for name in classes])
    order = np.argsort(-sure_C, kind="stable")[:3].tolist()
    return ", ".join(f"{classes[place]} {sure_C[place]:.2f}" for place in order)


def _texts(found: _Read, truths: Sequence[str], chosen: Sequence[int]) -> tuple[list[str] | None, str]:
    """The texts of the rows, or why there are none."""
    folder = found.trial.folder
    if not made_here(folder.path):
        return None, "the run was not made here, so its data is not read"
    try:
        config = load_config(folder.config)
        if (why := _unreadable(config)) is not None:
            return None, why
        texts, labels = _records(config)
    except UserError as error:
        return None, f"the data cannot be read: {error}"
    same = found.classified is None or all(
        labels.get(name, truth) == truth for name, truth in zip(found.ids, truths, strict=True)
    )
    if not same:
        return None, "the data file has other labels now than when it was read"
    whole = [_text_of(found.ids[row], texts) for row in chosen]
    if not any(one is not None for one in whole):
        return None, "the data file has none of these rows now"
    return [one or "" for one in whole], ""


def _text_of(name: str, texts: Mapping[str, str]) -> str | None:
    """The text of a row; a word or a piece of a text, `<id>:<number>`, has the whole text."""
    text, _, number = name.rpartition(":")
    return texts.get(name, texts.get(text) if number.isdecimal() else None)


def _unreadable(config: Config) -> str | None:
    files = [getattr(config.data, name, None) for name in ("path", "validation_path", "test_path")]
    for file in [Path(str(one)).expanduser() for one in files if one]:
        with suppress(OSError):
            if not file.is_file():
                return f"{file} is no file here now"
            if file.stat().st_size > _MOST_BYTES:
                return f"{file} is over {_MOST_BYTES // 2**20} MiB and is not read again"
    return None


def _records(config: Config) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Text and label of each validation row by id; a label that is no single class is left out. Raises DataError."""
    from danube_sweep.data.parts import load_parts

    data = replace(config.data, extra=[]) if isinstance(config.data, ExtraRows) else config.data
    found = load_parts(data, config.head.target)
    texts, labels = {}, {}
    for record in found.validation:
        texts[record.id] = " \N{PILCROW SIGN} ".join(record.texts) if len(record.texts) <= 3 else "".join(record.texts)
        label = record.label
        if label is not None and len(label) == len(found.classes) and max(label) == sum(label) == 1:
            labels[record.id] = found.classes[label.index(1)]
    if not texts:
        raise DataError("no validation rows")
    return texts, labels
