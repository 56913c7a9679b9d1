"""The content of a ranking: its rows, best first, and the row that wins.

A row's trials differ only in their seed and fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from danube_sweep.config.schema.states import State
from danube_sweep.errors import CheckpointError
from danube_sweep.results.nothing_learned import Prior
from danube_sweep.results.training_noise import Cell, TrainingNoise

Objectives = Sequence[tuple[str, str]]

FINISHED = State.finished.value
EARLY = (State.pruned.value, State.paused.value)
"""The states of a trial that has results and did not train to its end."""


@dataclass(frozen=True)
class TrialOutcome:
    """One trial of the sweep: its folder's name, its state, and why, if it ended badly."""

    trial: str
    state: str
    reason: str | None
    unread: OSError | None = None
    """What the system said instead of giving its result.json."""


@dataclass(frozen=True)
class Row:
    """Trials that differ only in their seed and fold.

    Numbers are means over `used`: the trials that finished, ended early or are paused, each at its best validation so
    far. So a row does not gain by a bad seed that was pruned. A row is compared with the best row over the seeds and
    folds that both have. A row that has `lost` trials is not compared.
    """

    values: dict[str, Any]
    """By varied key, in the ranking's order."""
    trials: list[str]
    """Names of the run folders; of `used` and of all others."""
    used: list[str]
    """The finished ones first."""
    seeds: list[int]
    """Of `used`, each once."""
    cells: dict[Cell, float]
    """The first objective of `used` by seed and fold, in their order."""
    by_fold: dict[int | None, list[str]]
    """Names of `used` by the fold that validates, in order; without folds all are under None."""
    folds: int | None
    """How many there are, used or not; None without folds."""
    state: str
    """`finished`, or for several states `2 finished, 1 oom`."""
    early: int
    """How many of `used` were ended early, or are paused."""
    lost: str
    """`1 failed, 1 oom`: the ends of the trials that have no numbers, if others have; otherwise empty."""
    error: str | None
    objectives: list[float | None]
    """Means, in the order of Ranking.objectives."""
    deviation: float | None
    """Standard deviation of the first objective over seeds and folds (n - 1); None for a single one."""
    metrics: dict[str, float]
    """Validation metrics by name."""
    test: dict[str, float]
    benchmark: dict[str, dict[str, float]]
    """By task of trainer.benchmark: before, after, change, change_low and change_high; means over seeds and folds."""
    seconds: float | None
    """Training and validation."""
    tokens_per_s: float | None
    peak_memory_bytes: float | None
    predicted_memory_bytes: float | None
    """The largest of the trials, as all have to fit."""
    packed: int | None = None
    """The largest number of trials in a pack with one of its trials, itself included; None if it is unknown."""
    rank: int | None = None
    """From 1; None without a metric."""
    difference: float | None = None
    """First objective minus that of the best row, over the seeds and folds of both; None for the best row."""
    interval: tuple[float, float] | None = None
    """95 % interval of the difference, for all rows at once. Ranking.covers names the errors in it."""
    own_interval: tuple[float, float] | None = None
    """Of the best row: 95 % interval of its mean."""
    tie: bool = False
    """Whether the interval holds 0: the difference to the best row can be chance."""
    baseline: str = ""
    """The name of a linear model that the trials are measured against; it has no trials and no rank."""
    readings: int | None = None
    """The fewest validations of its trials that ended early; None for a row without such trials."""
    regret: float | None = None
    """The largest predicted chance of a trial that ended early to have been the best one; None without such trials."""
    front: bool = False
    """With several objectives: whether no other row is as good in all and better in one."""

    @property
    def mean(self) -> float | None:
        return self.objectives[0]

    @property
    def count(self) -> int:
        return len(self.used)

    @property
    def pruned(self) -> bool:
        """Whether the numbers are, in part at least, those of trials that were ended early, or are paused."""
        return self.early > 0

    @property
    def seed_count(self) -> int:
        """Trials of a fold, or of the one split."""
        return 0 if self.baseline else max(map(len, self.by_fold.values()), default=0)


@dataclass(frozen=True)
class Ranking:
    """A sweep's rows, best first; those without a metric last."""

    path: Path
    rows: list[Row]
    varied: list[str]
    objectives: list[tuple[str, str]]
    """Metric and goal; the first ranks."""
    trials: list[TrialOutcome]
    notes: list[str] = field(default_factory=list)
    noise: TrainingNoise | None = None
    """How much a trial differs when it is trained again; None where nothing was."""
    covers: str | None = None
    """A sentence on the errors in the intervals; None without intervals."""
    baselines: list[Row] = field(default_factory=list)
    """Rows of linear models on the same split, best first."""
    prior: Prior | None = None
    """The best row against answering without reading, where that is known."""
    regret: float | None = None
    """The predicted chance that any row that ended early would have been the best one; None without such a row."""

    @property
    def shown(self) -> list[Row]:
        """All rows with the baselines at their places."""
        sign = -1 if self.goal == "maximize" else 1
        numbers = [(row, row.mean) for row in [*self.rows, *self.baselines]]
        measured = sorted(((row, mean) for row, mean in numbers if mean is not None), key=lambda one: sign * one[1])
        return [*(row for row, _ in measured), *(row for row, mean in numbers if mean is None)]

    @property
    def metric(self) -> str:
        return self.objectives[0][0]

    @property
    def goal(self) -> str:
        return self.objectives[0][1]


def winner(ranking: Ranking) -> Row | None:
    """The best row, trained to its end or not, since its best step is saved. None while no row has a metric.

    Rows that have lost trials by failures, or have fewer of their folds than others, win only if there is no other.
    """
    return _winner(ranking.rows)


def refuse_unread(ranking: Ranking) -> None:
    """Raises CheckpointError if a result cannot be read, though it is there: its trial may be the best."""
    for one in ranking.trials:
        if one.unread is not None:
            raise CheckpointError(
                f"{ranking.path / one.trial}/result.json cannot be read: {one.unread.strerror}; its trial may be the "
                "best: make it readable, or give the folder of one run"
            ) from one.unread


def ties(ranking: Ranking) -> list[Row]:
    """The rows that cannot be told from the best one: their interval of the difference contains 0."""
    return [row for row in ranking.rows if row.difference is not None and row.tie]


def _winner(rows: Sequence[Row]) -> Row | None:
    measured = [row for row in rows if row.mean is not None]
    whole = [row for row in measured if not row.lost] or measured
    most = max(map(_share_of_folds, whole), default=0.0)
    return next((row for row in whole if _share_of_folds(row) == most), None)


def _share_of_folds(row: Row) -> float:
    return len(row.by_fold) / (row.folds or 1)


def with_difference(row: Row, apart: float, half: float | None) -> Row:
    """The row with its difference to the best one."""
    interval = None if half is None else (apart - half, apart + half)
    tie = interval is not None and interval[0] <= 0 <= interval[1]
    return replace(row, difference=apart, interval=interval, tie=tie)
