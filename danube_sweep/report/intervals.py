"""How sure the number of a row is: over the choice of the validation rows, and over seeds and folds."""

from dataclasses import dataclass
from math import hypot, sqrt
from pathlib import Path
from typing import Final

from danube_sweep.results.bootstrap import paired_intervals
from danube_sweep.results.example_losses import PAIRED, read_examples
from danube_sweep.results.rank import Row
from danube_sweep.storage.run_folder import RunFolder

_STUDENT: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145)
"""Two-sided 95 % quantiles of Student's t by degrees of freedom from 1; beyond these a bound that is close."""


@dataclass(frozen=True)
class Certainty:
    """95 % intervals of a row's mean; None where there is nothing to say."""

    mean: float
    examples: tuple[float, float] | None
    """Over the validation rows, by bootstrap."""
    repeats: tuple[float, float] | None
    """Over seeds and folds, by Student's t."""

    @property
    def both(self) -> tuple[float, float] | None:
        """Over both, their distances from the mean added as independent errors are; one where the other is missing."""
        if self.examples is None or self.repeats is None:
            return self.examples or self.repeats
        (low, high), (low_too, high_too) = self.examples, self.repeats
        below, above = hypot(self.mean - low, self.mean - low_too), hypot(high - self.mean, high_too - self.mean)
        return self.mean - below, self.mean + above


def certainty(path: Path, row: Row, metric: str) -> Certainty | None:
    """The intervals of a row of the sweep in `path`; None for a row without a metric."""
    if row.mean is None:
        return None
    return Certainty(row.mean, _over_examples(path, row, metric), _over_repeats(row))


def half_width(deviation: float, count: int) -> float:
    """Half of the 95 % interval of a mean of `count` numbers with this standard deviation."""
    return student(count - 1) * deviation / sqrt(count)


def student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.6 / freedom


def _over_examples(path: Path, row: Row, metric: str) -> tuple[float, float] | None:
    if metric not in PAIRED or row.mean is None:
        return None
    parts = [[RunFolder(path / name).predictions for name in names] for names in row.by_fold.values()]
    found = read_examples(parts, metric)
    if isinstance(found, str):
        return None
    ((low, high),) = paired_intervals(found.values[None, :], found.weights)
    return float(low), float(high)


def _over_repeats(row: Row) -> tuple[float, float] | None:
    if row.mean is None or row.deviation is None:
        return None
    half = half_width(row.deviation, row.count)
    return row.mean - half, row.mean + half
