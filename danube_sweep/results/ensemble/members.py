"""The finished runs that can be blended: predictions of the same validation rows, checked by content.

Axes: N examples, C classes, A parts of an example's loss, T temperatures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import compute

from danube_sweep.config.schema.states import State
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.results.answers import Answers, Codes, aligned, joined, read_answers
from danube_sweep.results.oof.fold_groups import stored_trials
from danube_sweep.results.trial_results import StoredTrial
from danube_sweep.results.varied_keys import by_row, value_of, varied_keys
from danube_sweep.storage.predictions import Floats

TEMPERATURES = np.exp(np.linspace(np.log(0.3), np.log(4.0), 26))
"""Those that are tried; 1 itself takes the place of the one next to it."""
TEMPERATURES[np.abs(np.log(TEMPERATURES)).argmin()] = 1.0
_SURE = 1e-12
"""Probabilities are kept this far from 0, as a loss must be finite."""


@dataclass(frozen=True)
class Member:
    """A finished model: one run, or one for each fold."""

    name: str
    trials: list[StoredTrial]
    answers: Answers

    @property
    def runs(self) -> list[Path]:
        return [trial.folder.path for trial in self.trials]


def find_members(directories: Sequence[Path], wanted: str = "an ensemble") -> tuple[list[Member], list[str]]:
    """The models of run and sweep folders that can be blended, the most that agree, and notes on the others.

    Raises CheckpointError for a folder that is neither, ConfigError if fewer than two models agree in their rows.
    """
    notes: list[str] = []
    trials = [trial for directory in directories for trial in stored_trials(directory, notes)]
    finished = [trial for trial in trials if trial.state == State.finished.value]
    if len(finished) < len(trials):
        notes.append(f"{len(trials) - len(finished)} of {len(trials)} trials are not finished and do not count")
    varied, found, refused = varied_keys(finished), list[Member](), Counter[str]()
    for group in _by_model(finished):
        member = _member(group, varied)
        if isinstance(member, str):
            refused[member] += len(group)
        else:
            found.append(member)
    agreeing, others = _agreeing(_told_apart(found))
    refused.update(others)
    notes += [f"{count} trial{'s' * (count > 1)} left out: {why}" for why, count in refused.items()]
    if len(agreeing) < 2:
        said = "; ".join(notes) or f"{len(agreeing)} finished"
        raise ConfigError(f"{', '.join(map(str, directories))}: {wanted} needs two models of the same rows: {said}")
    return agreeing, notes


def _told_apart(members: Sequence[Member]) -> list[Member]:
    """The models, those of one name with their folders."""
    names = Counter(one.name for one in members)
    return [one if names[one.name] == 1 else replace(one, name=f"{one.name} ({one.runs[0]})") for one in members]


def _by_model(trials: Sequence[StoredTrial]) -> list[list[StoredTrial]]:
    """Trials of one configuration and seed that differ in their fold, together. One without folds stands alone."""
    found = []
    for row in by_row(trials):
        models: dict[Any, list[StoredTrial]] = {}
        for trial in row:
            models.setdefault(trial.seed if trial.fold is not None else trial.folder.path.resolve(), []).append(trial)
        found += list(models.values())
    return found


def _member(trials: list[StoredTrial], varied: Sequence[str]) -> Member | str:
    """The trials as one model, or in a few words the reason why they are none."""
    first = trials[0]
    folds = {trial.fold: trial for trial in trials}
    if first.folds is not None and first.fold is not None and len(folds) < first.folds:
        return f"not all of their {first.folds} folds are finished"
    kept = [folds[fold] for fold in sorted(folds, key=lambda fold: fold or 0)]
    read = [read_answers(trial.folder.predictions) for trial in kept]
    if (why := next((one for one in read if isinstance(one, str)), None)) is not None:
        return why
    try:
        answers = reduce(joined, [one for one in read if isinstance(one, Answers)])
    except ValueError as error:
        return str(error)
    if answers.probabilities_NC is None and answers.numbers_N is None:
        return "language modelling gives no answers to blend"
    if compute.count_distinct(answers.ids, mode="all").as_py() != len(answers.ids):
        return "an id of their validation rows is there twice; give ids that tell rows apart by data.id_column"
    values = {key: value_of(first, key) for key in varied}
    seeds = [] if first.seed is None else [f"seed={first.seed}"]
    name = ", ".join([*(f"{key}={value}" for key, value in values.items()), *seeds]) or first.name
    return Member(name, kept, answers)


def _agreeing(members: Sequence[Member]) -> tuple[list[Member], Counter[str]]:
    """The largest set of models with the same rows, labels and classes, in one order, and why the others are left."""
    sets: list[list[Member]] = []
    for member in members:
        for same in sets:
            like = same[0].answers
            found = aligned(member.answers, like)
            if isinstance(found, Answers) and _asked_alike(found, like):
                same.append(replace(member, answers=found))
                break
        else:
            sets.append([member])
    sets.sort(key=len, reverse=True)
    left = Counter[str]()
    for same in sets[1:]:
        left["other validation rows, labels or classes than the others"] += sum(len(one.trials) for one in same)
    return (sets[0] if sets else []), left


def _asked_alike(one: Answers, like: Answers) -> bool:
    pairs: list[tuple[Any, Any]] = [
        (one.labels_N, like.labels_N),
        (one.labels_NC, like.labels_NC),
        (one.wanted_N, like.wanted_N),
    ]
    return one.classes == like.classes and all(
        (mine is None) == (theirs is None) and (mine is None or np.array_equal(mine, theirs)) for mine, theirs in pairs
    )


def check_members(members: Sequence[Member]) -> Codes:
    """The group of each example, on which the halves are dealt. Raises CheckpointError for a single group."""
    groups_N = members[0].answers.places_N
    if len(np.unique(groups_N)) < 4:
        raise CheckpointError("the validation rows are of fewer than 4 groups: too few to judge an ensemble by")
    return groups_N


def tempered(answers_NA: Floats, temperature: float, *, shares: bool) -> Floats:
    """Probabilities at a temperature: logits divided by it. `shares`: they sum to 1; otherwise each stands alone."""
    if temperature == 1.0:
        return answers_NA
    sure = np.clip(answers_NA, _SURE, 1.0 if shares else 1.0 - _SURE)
    powered = sure ** (1.0 / temperature)
    if shares:
        return np.asarray(powered / powered.sum(axis=-1, keepdims=True))
    return np.asarray(powered / (powered + (1.0 - sure) ** (1.0 / temperature)))


def parts_at(answers: Answers) -> Floats:
    """The part of the loss that blends linearly, at every temperature: [T, N, A].

    For one class an example its probability; for several the probability of being right on each; for numbers, at one
    temperature, the error.
    """
    if answers.numbers_N is not None:
        return parts_as_answered(answers)[None]
    shares, sure_NC = answers.labels_N is not None, answers.probabilities_NC
    assert sure_NC is not None
    at = [tempered(sure_NC, float(temperature), shares=shares) for temperature in TEMPERATURES]
    return np.stack([parts_as_answered(replace(answers, probabilities_NC=one)) for one in at])


def parts_as_answered(answers: Answers) -> Floats:
    """The same as the model answers itself: [N, A]."""
    if answers.numbers_N is not None and answers.wanted_N is not None:
        return np.asarray((answers.numbers_N - answers.wanted_N)[:, None])
    sure_NC = answers.probabilities_NC
    assert sure_NC is not None
    if answers.labels_N is not None:
        return np.take_along_axis(sure_NC, answers.labels_N[:, None], axis=1)
    return np.where(answers.labels_NC == 1, sure_NC, 1 - sure_NC)


def losses(parts_NA: Floats, *, numbers: bool) -> Floats:
    """The loss of each example, [..., N]: log loss (its mean over several classes), or for numbers squared error."""
    if numbers:
        return np.asarray(np.square(parts_NA[..., 0]))
    return np.asarray(-np.log(np.maximum(parts_NA, _SURE)).mean(axis=-1))
