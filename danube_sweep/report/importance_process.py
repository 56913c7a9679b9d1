"""The other process of importance.py: run by `python -m` with a question on its input, it prints the shares.

It imports nothing of ours: what it has to import takes longer than reading two hundred trials, scikit-learn and pandas
come along.
"""

import importlib
import json
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Final

_TOP: Final = 5
"""Rows that PED-ANOVA wants in its top part."""


@dataclass(frozen=True)
class Question:
    """The question to the other process: each row's value of each key, and its metric."""

    goal: str
    ranges: dict[str, bool]
    """Keys that are ranges of numbers, and whether they are logarithmic."""
    rows: list[dict[str, str]]
    numbers: list[float]


def weigh(question: Question) -> dict[str, float]:
    """The shares, together 1; none where no key separates the best rows from the others."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=optuna.study.StudyDirection[question.goal.upper()])
    distributions = {name: _distribution(question, name) for name in question.rows[0]}
    for row, number in zip(question.rows, question.numbers, strict=True):
        values = {name: float(text) if name in question.ranges else text for name, text in row.items()}
        study.add_trial(optuna.create_trial(params=values, distributions=distributions, value=number))
    quantile = min(0.5, max(0.1, _TOP / len(question.rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials: the page says how many there are
        found = PedAnovaImportanceEvaluator(target_quantile=quantile).evaluate(study)
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return {name: value / total for name, value in ordered} if total > 0 else {}


def _distribution(question: Question, name: str) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    labels = [row[name] for row in question.rows]
    if name not in question.ranges:
        return CategoricalDistribution(list(dict.fromkeys(labels)))
    places = [float(label) for label in labels]
    return FloatDistribution(min(places), max(places), log=question.ranges[name])


if __name__ == "__main__":
    importlib.import_module("optuna.importance")  # while the report still reads
    print(json.dumps(weigh(Question(**json.load(sys.stdin)))))
