"""The effect of each varied key on the metric, level by level."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from danube_sweep.config.finite_number import is_finite_number
from danube_sweep.results.ranking_table import shown
from danube_sweep.results.rows import Row

_LEVELS: Final = 8
"""Numbers with more values than that are a range."""


@dataclass(frozen=True)
class Level:
    """One value of a key, and the rows that have it."""

    label: str
    numbers: list[float]
    """Their metric, in the ranking's order."""
    keys: list[str]
    """Their names on the page."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.numbers))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the mean over its rows, by Student's t; None for a single row.

        It is of configurations like these, and holds what their other choices do: no interval of the ranking.
        """
        count = len(self.numbers)
        if count < 2:
            return None
        half = student(count - 1) * float(np.std(self.numbers, ddof=1)) / math.sqrt(count)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Factor:
    """A varied key and its levels in order; a range of numbers also has each row's place on it."""

    name: str
    levels: list[Level]
    numeric: bool

    @property
    def is_range(self) -> bool:
        """Whether it has more values than could each have a mean."""
        return self.numeric and len(self.levels) > _LEVELS

    @property
    def is_logarithmic(self) -> bool:
        places = [float(level.label) for level in self.levels] if self.numeric else []
        return bool(places) and min(places) > 0 and max(places) / min(places) >= 10


def student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def find_factors(rows: Mapping[str, Row], varied: Sequence[str]) -> list[Factor]:
    """Every varied key with its levels; `rows` by their name on the page, only those with a metric count."""
    scored = {key: row for key, row in rows.items() if row.mean is not None}
    return [factor for name in varied if len((factor := _factor(scored, name)).levels) > 1]


def _factor(rows: Mapping[str, Row], name: str) -> Factor:
    numeric = all(is_finite_number(row.values.get(name)) for row in rows.values())
    groups: dict[Any, list[str]] = {}
    for key, row in rows.items():
        value = row.values.get(name)
        groups.setdefault(
            float(value) if numeric and is_finite_number(value) else shown(value) or "default", []
        ).append(key)
    order = sorted(groups) if numeric else list(groups)
    levels = [
        Level(_said(value) if numeric else str(value), [rows[key].mean or 0.0 for key in groups[value]], groups[value])
        for value in order
    ]
    return Factor(name, levels, numeric)


def _said(value: float) -> str:
    return f"{value:.6g}"


def label_of(factor: Factor, row: Row) -> str:
    """The level that a row has."""
    value = row.values.get(factor.name)
    return _said(float(value)) if factor.numeric and is_finite_number(value) else shown(value) or "default"
