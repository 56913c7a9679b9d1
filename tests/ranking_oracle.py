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


def oracle(rows: Sequence[Sequence[Path]], metric: Metric, *, single: bool = False) -> Oracle:
    """The first row against all others; `single` for one seed everywhere, whose noise nobody knows."""
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
    # What trainings differ by on single rows is in the resamples already.
    known = 0.0 if single else float(np.median(each.var(axis=2, ddof=1).mean(axis=0)))
    sd, noise = (None, np.zeros_like(away)) if single else _noise(whole, known, generator)
    drawn_all = away + noise
    errors = np.array(
        [
            [np.quantile(np.abs(drawn_all[:, a] - drawn_all[:, b]), 0.95) for b in range(len(rows))]
            for a in range(len(rows))
        ]
    )
    differences = whole.mean(axis=1) - whole.mean(axis=1)[0]
    halves = _stepped(drawn_all, errors, differences)
    return Oracle(differences[1:].tolist(), halves[1:], float(np.quantile(np.abs(drawn_all[:, 0]), 0.95)), sd)


def _noise(whole: Any, known: float, generator: Any) -> tuple[float, Any]:
    """The pooled standard deviation of a trial, and draws of every row's noise with Student's tails."""
    rows, seeds = whole.shape
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
