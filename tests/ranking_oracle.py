"""The intervals of a ranking, computed again from the files on disk with numpy and scipy alone, and slowly.

A row is its trials' folders by seed; a metric is a function of a file's columns and of the places of chosen rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet
from scipy import stats

Columns = dict[str, Any]
Metric = Callable[[Columns, Any], float]
DRAWS = 1000


@dataclass
class Oracle:
    """Differences to the first row and halves of the 95 % intervals; `own` is the first row's."""

    differences: list[float]
    halves: list[float]
    own: float
    sd: float | None


def columns(folder: Path) -> Columns:
    table = parquet.read_table(folder / "predictions.parquet")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def probabilities(found: Columns) -> tuple[Any, list[str]]:
    names = [name for name in found if name.startswith("probability_")]
    classes = [name.removeprefix("probability_") for name in names]
    return np.stack([found[name] for name in names], axis=1), classes


def oracle(rows: Sequence[Sequence[Path]], metric: Metric) -> Oracle:
    """The first row against all others; of single trials, whose noise nobody knows, the spread stands in for it."""
    files = [[columns(folder) for folder in row] for row in rows]
    groups = files[0][0]["group"]
    members = [np.flatnonzero(groups == code) for code in np.unique(groups)]
    generator = np.random.default_rng(123)
    whole = np.array([[metric(one, np.arange(len(groups))) for one in row] for row in files])
    each = np.zeros((DRAWS, len(rows), len(rows[0])))
    for draw in range(DRAWS):
        drawn = generator.integers(0, len(members), len(members))
        chosen = np.concatenate([members[place] for place in drawn])
        each[draw] = [[metric(one, chosen) for one in row] for row in files]
    each = (each - whole) * np.sqrt(len(members) / (len(members) - 1))
    away = each.mean(axis=2)
    single = whole.shape[1] == 1
    sd, noise = (None, _spread(whole, away, generator)) if single else _noise(whole, each, generator)
    drawn_all = away + noise
    errors = np.array(
        [
            [np.quantile(np.abs(drawn_all[:, a] - drawn_all[:, b]), 0.95) for b in range(len(rows))]
            for a in range(len(rows))
        ]
    )
    differences = whole.mean(axis=1) - whole.mean(axis=1)[0]
    halves = _stepped(drawn_all, errors, differences)
    return Oracle(differences[1:].tolist(), halves[1:], _own(away if single else drawn_all), sd)


def _own(drawn: Any) -> float:
    return float(np.quantile(np.abs(drawn[:, 0]), 0.95))


def _spread(whole: Any, away: Any, generator: Any) -> Any:
    """Draws of every row's noise, as large as the rows' own median absolute deviation, less the resamples' part."""
    rows = len(whole)
    to_deviation = rows / (rows - 0.8)
    deviation = stats.median_abs_deviation(whole[:, 0], scale="normal") * to_deviation
    known = np.mean((stats.median_abs_deviation(away, axis=1, scale="normal") * to_deviation) ** 2)
    freedom = 0.37 * (rows - 1)
    drawn = deviation**2 * freedom / stats.chi2.rvs(freedom, size=DRAWS, random_state=generator)
    return np.sqrt(np.maximum(drawn - known, 0.0))[:, None] * generator.normal(size=(DRAWS, rows))


def _noise(whole: Any, each: Any, generator: Any) -> tuple[float, Any]:
    """The pooled standard deviation of a trial, and draws of every row's noise with Student's tails."""
    rows, seeds = whole.shape
    # What trainings differ by on single rows is in the resamples already.
    known = float(np.median(each.var(axis=2, ddof=1).mean(axis=0)))
    variances = whole.var(axis=1, ddof=1)
    if rows > 2:
        freedom = 0.4 * rows * (seeds - 1)
        pooled = np.median(variances) / (stats.chi2.median(seeds - 1) / (seeds - 1))
    else:
        freedom, pooled = rows * (seeds - 1), variances.mean()
    drawn = pooled * freedom / stats.chi2.rvs(freedom, size=DRAWS, random_state=generator)
    sizes = np.sqrt(np.maximum(drawn - known, 0.0))
    return float(np.sqrt(pooled)), sizes[:, None] * generator.normal(size=(DRAWS, rows)) / np.sqrt(seeds)


def _stepped(drawn: Any, errors: Any, differences: Any) -> list[float]:
    halves, left = np.zeros(len(differences)), list(range(1, len(differences)))
    while left:
        family = [0, *left]
        largest = np.zeros(DRAWS)
        for a in family:
            for b in family:
                if errors[a, b] > 0:
                    largest = np.maximum(largest, np.abs(drawn[:, a] - drawn[:, b]) / errors[a, b])
        halves[left] = np.quantile(largest, 0.95) * errors[0, left]
        stay = [row for row in left if abs(differences[row]) <= halves[row]]
        if stay == left:
            break
        left = stay
    return halves.tolist()
