"""Which varied key matters most, by Optuna's PED-ANOVA (arXiv:2304.10255).

It works in its own process, importance_process.py, that imports Optuna while the folder is read.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, Self, final

from danube_sweep.report import importance_process
from danube_sweep.report.factor_effects import Factor, label_of
from danube_sweep.report.importance_process import Question
from danube_sweep.results.rows import Row

FEWEST: Final = 4
"""Rows below which an importance would be a guess."""
_WAIT_S: Final = 60.0


@final
class Importance:
    """The other process; a context manager that lets nothing of it outlive the report.

    `wanted`: whether there may be enough rows for it.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._process = self._started() if wanted else None

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", importance_process.__name__],
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
        return found or "no key separates the best rows from the others"


def _ask(process: subprocess.Popen[str], question: Question) -> dict[str, float] | str:
    try:
        said, _ = process.communicate(json.dumps(vars(question)), timeout=_WAIT_S)
        return {str(name): float(share) for name, share in json.loads(said).items()}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "Optuna could not weigh these rows"
