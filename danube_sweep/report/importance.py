"""Which varied key matters most, by Optuna's PED-ANOVA (arXiv:2304.10255).

Importing it takes longer than reading two hundred trials, scikit-learn and pandas come along, so it works in a process
of its own that imports while the folder is read: `python -m danube_sweep.report.importance` is that process.
"""

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from danube_sweep.report.factors import Factor, label_of
from danube_sweep.sweep.ranking.rank import Row

FEWEST: Final = 4
"""Rows below which an importance would be a guess."""
_TOP: Final = 5
"""Rows that PED-ANOVA wants in its top part."""
_WAIT_S: Final = 60.0


@dataclass(frozen=True)
class Question:
    """What the other process is asked: each row's value of each key, and its metric."""

    goal: str
    ranges: dict[str, bool]
    """Keys that are ranges of numbers, and whether they are logarithmic."""
    rows: list[dict[str, str]]
    numbers: list[float]


@final
class Importance:
    """The other process; a context manager that lets nothing of it outlive the report.

    `wanted`: whether there may be enough rows for it.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._process = self._started() if wanted else None

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def of(self, rows: Sequence[Row], factors: Sequence[Factor], goal: str) -> dict[str, float] | str:
        """The share of each key in reaching the best rows, most first; or in a sentence why there is none."""
        scored = [row for row in rows if row.mean is not None]
        if self._process is None or len(scored) < FEWEST:
            return f"{len(scored)} row{'s' * (len(scored) != 1)} with a metric; an importance needs at least {FEWEST}"
        if not factors:
            return "nothing varies between the rows that have a metric"
        ranges = {factor.name: factor.is_logarithmic for factor in factors if factor.is_range}
        values = [{factor.name: label_of(factor, row) for factor in factors} for row in scored]
        found = _ask(self._process, Question(goal, ranges, values, [row.mean or 0.0 for row in scored]))
        return found or "no key tells the best rows from the others"


def _ask(process: subprocess.Popen[str], question: Question) -> dict[str, float] | str:
    try:
        said, _ = process.communicate(json.dumps(asdict(question)), timeout=_WAIT_S)
        return {str(name): float(share) for name, share in json.loads(said).items()}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "Optuna could not weigh these rows"


def weigh(question: Question) -> dict[str, float]:
    """The shares, together 1; none where no key tells the best rows from the others."""
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
