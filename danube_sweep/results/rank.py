"""The ranking of a sweep folder: its trials by what they vary, best first, and how sure the differences are.

It reads what is there, so it works while the sweep runs, after it was killed, and in folders of Hydra's own launchers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from danube_sweep.config.schema import Sweep
from danube_sweep.config.schema.states import State
from danube_sweep.config.validate.check_sweep import objectives as objectives_of
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.results.intervals import Contender, Intervals, difference, find_intervals
from danube_sweep.results.nothing_learned import Prior, prior_of
from danube_sweep.results.training_noise import Cell, TrainingNoise, training_noise
from danube_sweep.results.trial_results import UNDER_WAY, StoredTrial, read_trials
from danube_sweep.results.varied_keys import by_row, value_of, varied_keys
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import number_at
from danube_sweep.storage.sweep_folder import SweepFolder

Objectives = Sequence[tuple[str, str]]

FINISHED, PRUNED = State.finished.value, State.pruned.value


@dataclass(frozen=True)
class TrialOutcome:
    """One trial of the sweep: its folder's name, its state, and why, if it ended badly."""

    trial: str
    state: str
    reason: str | None


@dataclass(frozen=True)
class Row:
    """Trials that differ only in their seed and fold.

    Numbers are means over `used`: the finished ones, else the pruned ones. The comparison with the best row is over the
    seeds and folds that both have, and there is none with survivors: of a row that has `lost` some of its trials.
    """

    values: dict[str, Any]
    """By varied key, in the ranking's order."""
    trials: list[str]
    """Names of the run folders; of `used` and of all others."""
    used: list[str]
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
    pruned: bool
    """Whether the numbers are those of trials that were ended early."""
    lost: str
    """`1 pruned, 1 oom`: how its other trials ended, where some are finished; else empty."""
    error: str | None
    objectives: list[float | None]
    """Means, in the order of Ranking.objectives."""
    deviation: float | None
    """Standard deviation of the first objective over seeds and folds (n - 1); None for a single one."""
    metrics: dict[str, float]
    """Validation metrics by name."""
    test: dict[str, float]
    seconds: float | None
    """Training and validation."""
    tokens_per_s: float | None
    peak_memory_bytes: float | None
    predicted_memory_bytes: float | None
    """The largest of the trials, as all have to fit."""
    rank: int | None = None
    """From 1; None without a metric."""
    difference: float | None = None
    """First objective minus that of the best row, over what both have; None for that row itself."""
    interval: tuple[float, float] | None = None
    """95 % interval of the difference, of all rows at once; of what is in Ranking.covers."""
    own_interval: tuple[float, float] | None = None
    """Of the best row: 95 % interval of its mean."""
    tie: bool = False
    """Whether the interval holds 0: the difference to the best row can be chance."""
    front: bool = False
    """With several objectives: whether no other row is as good in all and better in one."""

    @property
    def mean(self) -> float | None:
        return self.objectives[0]

    @property
    def count(self) -> int:
        return len(self.used)

    @property
    def seed_count(self) -> int:
        """Trials of a fold, or of the one split."""
        return max(map(len, self.by_fold.values()), default=0)


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
    """A sentence on what the intervals cover; None without any."""
    prior: Prior | None = None
    """The best row against answering without reading, where that is known."""

    @property
    def metric(self) -> str:
        return self.objectives[0][0]

    @property
    def goal(self) -> str:
        return self.objectives[0][1]


def rank_sweep(path: Path, objectives: Objectives | None = None) -> Ranking:
    """Reads a sweep folder; `objectives` (metric, goal) overrule those of its sweep.json.

    The same folder gives the same ranking. Raises CheckpointError for a folder that is no sweep, or whose sweep.json
    is damaged or from another version.
    """
    trials, notes = read_trials(path)
    return rank_trials(path, trials, notes, objectives)


def rank_trials(
    path: Path, trials: list[StoredTrial], notes: list[str], objectives: Objectives | None = None
) -> Ranking:
    """`rank_sweep` of trials that have been read."""
    chosen = list(objectives or _objectives(path))
    varied = varied_keys(trials)
    scores = _test_scores(path, notes)
    rows = [_row(_once(group, notes), varied, chosen, scores) for group in by_row(trials)]
    ended = [TrialOutcome(trial.name, trial.state, trial.reason) for trial in trials]
    found = Ranking(path, _with_front(_ordered(rows, chosen), chosen), varied, chosen, ended, notes)
    return _compared(found, {trial.name: trial for trial in trials})


def winner(ranking: Ranking) -> Row | None:
    """The best row whose trials are finished, all that are not under way; None while there is none.

    Rows that have lost trials, and with fewer of their folds than others, are for want of any other.
    """
    return _winner(ranking.rows)


def _winner(rows: Sequence[Row]) -> Row | None:
    finished = [row for row in rows if row.mean is not None and not row.pruned]
    whole = [row for row in finished if not row.lost] or finished
    most = max(map(_share_of_folds, whole), default=0.0)
    return next((row for row in whole if _share_of_folds(row) == most), None)


def _share_of_folds(row: Row) -> float:
    return len(row.by_fold) / (row.folds or 1)


def _objectives(path: Path) -> Objectives:
    folder = SweepFolder(path)
    settings = folder.read().get("settings", {}).get("sweep", {}) if folder.file.is_file() else {}
    asked = {name: settings[name] for name in ("metric", "goal") if name in settings}
    return objectives_of(Sweep(**asked))


def _test_scores(path: Path, notes: list[str]) -> dict[str, Any]:
    file = path / "test.json"
    if not file.is_file():
        return {}
    try:
        return dict(read_json(file)["trials"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        notes.append(f"{file.name} is cut short or damaged and does not count")
        return {}


def _once(group: list[StoredTrial], notes: list[str]) -> list[StoredTrial]:
    """Each seed and fold once: a second folder of the same trial would feign certainty."""
    kept: dict[Any, StoredTrial] = {}
    for trial in sorted(group, key=lambda one: one.state != FINISHED):
        key = trial.name if trial.seed is None else (trial.seed, trial.fold)
        if key in kept:
            notes.append(f"{trial.name} is the same trial as {kept[key].name} and does not count")
        kept.setdefault(key, trial)
    return [trial for trial in group if trial in kept.values()]


def _row(trials: list[StoredTrial], varied: list[str], objectives: Objectives, scores: dict[str, Any]) -> Row:
    metric = objectives[0][0]
    ended = {
        state: [one for one in trials if one.state == state and one.number(metric) is not None]
        for state in (FINISHED, PRUNED)
    }
    used = ended[FINISHED] or ended[PRUNED]
    reported = [number for trial in used if (number := trial.number(metric)) is not None]
    tests = [scores.get(trial.hash or "", trial.result.get("test")) for trial in used]
    return Row(
        values={key: value_of(trials[0], key) for key in varied},
        trials=[trial.name for trial in trials],
        used=[trial.name for trial in used],
        seeds=list(dict.fromkeys(trial.seed for trial in used if trial.seed is not None)),
        cells=_cells(used, metric),
        by_fold=_by_fold(used),
        folds=trials[0].folds,
        state=_states(trials),
        pruned=bool(used) and used[0].state == PRUNED,
        lost=_lost(trials, used),
        error=next((trial.reason for trial in trials if trial.reason), None),
        objectives=[_mean(used, address) for address, _ in objectives],
        deviation=stdev(reported) if len(reported) > 1 else None,
        metrics=_means([trial.result.get("validation") for trial in used]),
        test=_means(tests),
        seconds=_sum(_mean(used, "measured/seconds/train"), _mean(used, "measured/seconds/validation")),
        tokens_per_s=_mean(used, "measured/tokens_per_s"),
        peak_memory_bytes=max(_numbers(used, "measured/peak_memory_bytes"), default=None),
        predicted_memory_bytes=max(_numbers(used, "predicted/peak_memory_bytes"), default=None),
    )


def _by_fold(trials: Sequence[StoredTrial]) -> dict[int | None, list[str]]:
    folds = sorted({trial.fold for trial in trials}, key=lambda fold: -1 if fold is None else fold)
    return {fold: [trial.name for trial in trials if trial.fold == fold] for fold in folds}


def _cells(trials: Sequence[StoredTrial], metric: str) -> dict[Cell, float]:
    # Seeds that nobody knows (their config is damaged) are told apart.
    seeds = [-1 - place if trial.seed is None else trial.seed for place, trial in enumerate(trials)]
    numbers = [(trial.fold, trial.number(metric)) for trial in trials]
    return {(seed, fold): number for seed, (fold, number) in zip(seeds, numbers, strict=True) if number is not None}


def _lost(trials: list[StoredTrial], used: list[StoredTrial]) -> str:
    if not used or used[0].state == PRUNED:
        return ""
    gone = Counter(
        "without a metric" if trial.state == FINISHED else trial.state
        for trial in trials
        if trial not in used and trial.state not in UNDER_WAY
    )
    return ", ".join(f"{count} {state}" for state, count in gone.items())


def _states(trials: list[StoredTrial]) -> str:
    counted = Counter(trial.state for trial in trials)
    return next(iter(counted)) if len(counted) == 1 else ", ".join(f"{n} {state}" for state, n in counted.items())


def _numbers(trials: Sequence[StoredTrial], address: str) -> list[float]:
    return [number for trial in trials if (number := trial.number(address)) is not None]


def _mean(trials: Sequence[StoredTrial], address: str) -> float | None:
    numbers = _numbers(trials, address)
    return fmean(numbers) if numbers else None


def _sum(*parts: float | None) -> float | None:
    given = [part for part in parts if part is not None]
    return sum(given) if given else None


def _means(tables: Sequence[Any]) -> dict[str, float]:
    """The mean of every number by name, over the tables that have it."""
    given = [table for table in tables if isinstance(table, dict)]
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for table in given for name in table):
        numbers = [number for table in given if (number := number_at(table, name)) is not None]
        if numbers:
            found[name] = fmean(numbers)
    return found


def _ordered(rows: list[Row], objectives: Objectives) -> list[Row]:
    sign = _sign(objectives[0][1])
    ranked = sorted((row for row in rows if row.mean is not None), key=lambda row: sign * (row.mean or 0.0))
    numbered = [replace(row, rank=number) for number, row in enumerate(ranked, start=1)]
    return numbered + [row for row in rows if row.mean is None]


def _sign(goal: str) -> int:
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"sweep.goal must be minimize or maximize, got {goal}")
    return 1 if goal == "minimize" else -1


def _compared(ranking: Ranking, trials: dict[str, StoredTrial]) -> Ranking:
    """The rows with their difference to the best finished one, or while none is finished to the first."""
    best = winner(ranking) or next(iter(ranking.rows), None)
    if best is None or best.mean is None:
        return ranking
    contenders = {row.trials[0]: _contender(row, trials) for row in ranking.rows if row.mean is not None}
    noise = training_noise([row.cells for row in ranking.rows if row.cells and not row.pruned])
    mine = contenders.pop(best.trials[0])
    priors = {trials[name].fold: prior for name in best.used if (prior := trials[name].result.get("prior"))}
    found = find_intervals(ranking.metric, mine, list(contenders.values()), noise, priors)
    compared = [replace(best, own_interval=_around(best.mean, found.best)) if row is best else
                _with_interval(row, contenders, mine, found) for row in ranking.rows]  # fmt: skip
    return replace(
        ranking,
        rows=compared,
        notes=[*ranking.notes, *found.notes, *_other_cells(best, compared)],
        noise=noise,
        covers=_covered(found, noise),
        prior=prior_of(ranking.metric, ranking.goal, best.mean, found, [trials[name] for name in best.used]),
    )


def _contender(row: Row, trials: dict[str, StoredTrial]) -> Contender:
    refused = "ended early by the pruner" if row.pruned else None
    if row.lost:
        refused = "survivors, as its other trials were pruned or failed"
    files = {cell: trials[name].folder.predictions for cell, name in zip(row.cells, row.used, strict=True)}
    return Contender(row.trials[0], row.cells, files, refused)


def _with_interval(row: Row, contenders: dict[str, Contender], best: Contender, found: Intervals) -> Row:
    if row.mean is None:
        return row
    apart = difference(contenders[row.trials[0]], best)
    interval = _around(apart, found.halves.get(row.trials[0]))
    tie = interval is not None and interval[0] <= 0 <= interval[1]
    return replace(row, difference=apart, interval=interval, tie=tie)


def _around(middle: float, half: float | None) -> tuple[float, float] | None:
    return None if half is None else (middle - half, middle + half)


def _other_cells(best: Row, rows: Sequence[Row]) -> list[str]:
    mine = best.cells.keys()
    other = sum(row.cells.keys() != mine and bool(row.cells.keys() & mine) for row in rows)
    if not other:
        return []
    said = "row has other seeds or folds than the best row: its difference is" if other == 1 else (
        "rows have other seeds or folds than the best row: their differences are"
    )  # fmt: skip
    return [f"{other} {said} over those that both have"]


def _covered(found: Intervals, noise: TrainingNoise | None) -> str | None:
    if found.best is None:
        return None
    said = f"the intervals (95 %, for all rows at once) cover the choice of {found.resampled}"
    if noise is None:
        return f"{said}; not covered: training noise, which is unknown, as nothing was trained with a second seed"
    rows = f"{noise.rows} row{'s' * (noise.rows > 1)}"
    return f"{said}; and training noise: sd {noise.sd:.2g} over {noise.over}, pooled over {rows}"


def _with_front(rows: list[Row], objectives: Objectives) -> list[Row]:
    if len(objectives) < 2:
        return rows
    signs = [_sign(goal) for _, goal in objectives]
    points = [
        [sign * number for sign, number in zip(signs, row.objectives, strict=True) if number is not None]
        for row in rows
    ]
    whole = np.array([point for point in points if len(point) == len(signs)]).reshape(-1, len(signs))

    def on_front(point: list[float]) -> bool:
        beaten = (whole <= point).all(axis=1) & (whole < point).any(axis=1)
        return not bool(beaten.any())

    return [
        replace(row, front=len(point) == len(signs) and on_front(point))
        for row, point in zip(rows, points, strict=True)
    ]
