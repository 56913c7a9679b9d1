"""The data of the page: one or two sweep folders, read and analysed once."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from danube_sweep.benchmark.published import Published
from danube_sweep.report.comparability import Fact
from danube_sweep.report.factor_effects import Factor
from danube_sweep.report.learning_curves import Curve
from danube_sweep.report.row_predictions import Seen
from danube_sweep.report.slot_times import Timeline
from danube_sweep.report.validation_rows import ValidationRows
from danube_sweep.results.rows import Ranking, Row
from danube_sweep.results.trial_results import UNDER_WAY, StoredTrial


@dataclass(frozen=True)
class Shown:
    """A row of the ranking with the page's data about it."""

    key: str
    """Its name on the page, `r1` for the best one."""
    row: Row
    trials: list[StoredTrial]
    used: list[StoredTrial]
    """Those that its numbers are of; none for a row without a metric."""
    seen: Seen | None
    memory_bytes: float | None
    """Measured, or predicted for trials that shared a pack's memory."""
    seconds: float | None
    """Training and validation, a pack's shared among its trials."""
    shared: bool
    """Whether some of its trials trained in a pack."""

    @property
    def memory_gib(self) -> float | None:
        return None if self.memory_bytes is None else self.memory_bytes / 2**30

    @property
    def kind(self) -> str:
        """best, good (not told from the best), other, early (pruned or paused) or none (without a metric)."""
        row = self.row
        if row.mean is None:
            return "none"
        if row.difference is None:
            return "best"
        return "early" if row.pruned else "good" if row.tie else "other"


@dataclass(frozen=True)
class Cheaper:
    """A row that is as good as the best one and takes less."""

    shown: Shown
    saved: str


@dataclass(frozen=True)
class Answer:
    """The configuration to use, and how certain that is."""

    best: Shown | None
    learned: bool
    """False where the best row is known not to beat answering without reading by more than chance."""
    command: str | None
    """Trains the best row's first trial again; None without one, and if nothing was learned."""
    as_good: int
    """Rows that cannot be told from the best one."""
    cheaper: list[Cheaper]
    nothing_learned: list[str]
    """Sentences if the best one does not beat answering without reading, or a linear model; else nothing."""
    unknown: list[str]
    """The open questions of the sweep, a sentence each."""
    then: list[str]
    """The commands that use the answer; none if nothing was learned."""


@dataclass(frozen=True)
class Report:
    """A sweep as the page and the terminal show it."""

    paths: list[Path]
    """The sweep's folder, or those of two sweeps that are ranked together."""
    beside: Path
    """The folder that the page lies in: its links start there."""
    drawn: datetime
    ranking: Ranking
    shown: list[Shown]
    baselines: list[Shown]
    """Linear models on the same split; they have no trials."""
    curves: dict[str, Curve]
    """By the trial's name."""
    answer: Answer
    factors: list[Factor]
    importance: dict[str, float] | str
    """By varied key, together 1; or why there is none."""
    timeline: Timeline
    compared: list[Fact]
    published: Published | None
    references: dict[str, float]
    """The results of answering without reading, in the metric of the ranking, by name."""
    validation: ValidationRows | None = None
    """Single validation rows; None without predictions of the best row."""
    counted: dict[str, int] = field(default_factory=dict)
    """Trials by state."""
    data: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """The lines about the data, each with the names of the trials that read it."""

    @property
    def under_way(self) -> int:
        """Trials that have not ended."""
        return sum(self.counted.get(state, 0) for state in UNDER_WAY)
