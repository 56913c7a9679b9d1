"""Rules that turn answers into decisions. Axes: N examples, C classes, K borders between grades, A answers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from danube_sweep.storage.predictions import Floats

Decisions = NDArray[Any]
"""The place of a class or grade for each example [N]; for any number of classes whether each is there [N, C]."""
_SURE = 1e-12


@dataclass(frozen=True)
class Biases:
    """One class of several: the one whose log probability and bias have the largest sum."""

    kind: ClassVar[str] = "biases"
    numbers: list[float]
    """One for each class."""

    def decide(self, answers_NC: Floats) -> Decisions:
        return np.asarray((log_of(answers_NC) + np.array(self.numbers)).argmax(axis=1))


@dataclass(frozen=True)
class Thresholds:
    """Any number of classes: those whose probability reaches the class's threshold."""

    kind: ClassVar[str] = "thresholds"
    numbers: list[float]

    def decide(self, answers_NC: Floats) -> Decisions:
        return np.asarray(answers_NC >= np.array(self.numbers))


@dataclass(frozen=True)
class Cuts:
    """A grade: the number of borders that a score reaches.

    For numbers the score is the answer itself, for ordered classes the mean of their places.
    """

    kind: ClassVar[str] = "cuts"
    numbers: list[float]
    """Rising."""

    def decide(self, answers_NA: Floats) -> Decisions:
        return np.asarray(np.searchsorted(np.array(self.numbers), score_of(answers_NA), side="right"))


@dataclass(frozen=True)
class Outside:
    """The class of a word: O if its probability reaches the threshold, otherwise the likeliest of the other classes."""

    kind: ClassVar[str] = "outside"
    numbers: list[float]
    """The threshold."""
    place: int
    """Where O stands among the classes."""

    def decide(self, answers_NC: Floats) -> Decisions:
        others_NC = answers_NC.copy()
        others_NC[:, self.place] = -1.0
        return np.where(answers_NC[:, self.place] >= self.numbers[0], self.place, others_NC.argmax(axis=1))


Rule = Biases | Thresholds | Cuts | Outside


def log_of(answers_NC: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(answers_NC, _SURE)))


def score_of(answers_NA: Floats) -> Floats:
    """One number for each example: the answer if it is a number, otherwise the mean of the places of the classes."""
    if answers_NA.shape[1] == 1:
        return np.asarray(answers_NA[:, 0])
    return np.asarray(answers_NA @ np.arange(answers_NA.shape[1]))


def described(rule: Rule) -> dict[str, Any]:
    """The rule as JSON."""
    return {"kind": rule.kind, **asdict(rule)}


def rule_from(stored: Mapping[str, Any]) -> Rule:
    """The inverse of `described`. Raises ValueError, KeyError or TypeError for anything else."""
    kinds: dict[str, type[Biases] | type[Thresholds] | type[Cuts]] = {
        one.kind: one for one in (Biases, Thresholds, Cuts)
    }
    numbers = [float(one) for one in stored["numbers"]]
    if not all(np.isfinite(numbers)) or (stored["kind"] == Cuts.kind and numbers != sorted(numbers)):
        raise ValueError("finite numbers, and rising cuts")
    if stored["kind"] == Outside.kind:
        if len(numbers) != 1:
            raise ValueError("one threshold")
        return Outside(numbers, int(stored["place"]))
    return kinds[stored["kind"]](numbers)
