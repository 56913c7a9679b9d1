"""The ranking of a sweep folder: its trials by their varied values, best first, with intervals of the differences.

It reads the files that are there. So it works while the sweep runs, after a crash, and in folders of Hydra's own
launchers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from danube_sweep.config.schema import Sweep
from danube_sweep.config.validate.check_sweep import objectives as objectives_of
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.results.baseline_rows import baseline_rows, contender
from danube_sweep.results.courses import Course, course_of
from danube_sweep.results.intervals import Contender, Intervals, difference, find_intervals
from danube_sweep.results.nothing_learned import prior_of
from danube_sweep.results.regret import chances
from danube_sweep.results.rows import EARLY, FINISHED, Objectives, Ranking, Row, TrialOutcome, winner, with_difference
from danube_sweep.results.training_noise import Cell, TrainingNoise, training_noise
from danube_sweep.results.trial_results import UNDER_WAY, StoredTrial, read_trials
from danube_sweep.results.varied_keys import by_row, value_of, varied_keys
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import number_at
from danube_sweep.storage.sweep_folder import SweepFolder


def rank_sweep(path: Path, objectives: Objectives | None = None) -> Ranking:
    """Reads a sweep folder; `objectives` (metric, goal) overrule those of its sweep.json.

    The same folder gives the same ranking. Raises CheckpointError for a folder that is not a sweep, or whose sweep.json
    is damaged or from another version.
    """
    trials, notes = read_trials(path)
    return rank_trials(path, trials, notes, objectives)


def rank_trials(
    path: Path,
    trials: list[StoredTrial],
    notes: list[str],
    objectives: Objectives | None = None,
    others: Sequence[Path] = (),
) -> Ranking:
    """`rank_sweep` of trials that have been read; some may be of `others`, whose baselines are left out."""
    chosen = list(objectives or objectives_of_sweep(path))
    varied = varied_keys(trials)
    scores = _test_scores((path, *others), notes)
    rows = [_row(_once(group, notes), varied, chosen, scores) for group in by_row(trials)]
    ended = [TrialOutcome(trial.name, trial.state, trial.reason, trial.unread) for trial in trials]
    rivals = baseline_rows(path, chosen, varied, notes)
    notes += [line for one in (path, *others) for line in _confirmed(one)]
    if any(next(one.glob("baselines/*/result.json"), None) for one in others):
        notes.append(f"baselines are those of {path} alone")
    ranked = _with_front(_ordered(rows, chosen), chosen)
    found = Ranking(path, ranked, varied, chosen, ended, notes, baselines=rivals)
    return _with_regret(_compared(found, {trial.name: trial for trial in trials}), trials)


def objectives_of_sweep(path: Path) -> Objectives:
    """Metric and goal of every objective of a sweep folder; the defaults for one without sweep.json."""
    folder = SweepFolder(path)
    settings = folder.read().get("settings", {}).get("sweep", {}) if folder.file.is_file() else {}
    asked = {name: settings[name] for name in ("metric", "goal") if name in settings}
    return objectives_of(Sweep(**asked))


def _confirmed(path: Path) -> list[str]:
    """A note on the ranking before tied rows were trained again."""
    file = SweepFolder(path).confirmed
    try:
        stored = read_json(file) if file.is_file() else {}
        return [f"confirmed with {len(stored['trials'])} more trials; before them {stored['before']}"] if stored else []
    except (CheckpointError, KeyError, TypeError):
        return [f"{file.name} is cut short or damaged and does not count"]


@dataclass(frozen=True)
class _TestScores:
    """The winners' scores by trial hash: of the test part, and of trainer.benchmark's tasks on test splits."""

    parts: dict[str, Any]
    benchmarks: dict[str, Any]


def _test_scores(paths: Sequence[Path], notes: list[str]) -> _TestScores:
    found = _TestScores({}, {})
    for file in (path / "test.json" for path in paths):
        try:
            stored = read_json(file) if file.is_file() else {"trials": {}}
            found.parts.update(stored["trials"])
            found.benchmarks.update({key: dict(scores) for key, scores in stored.get("benchmarks", {}).items()})
        except (CheckpointError, KeyError, TypeError, ValueError, AttributeError):
            notes.append(f"{file.name} is cut short or damaged and does not count")
    if tasks := dict.fromkeys(task for scores in found.benchmarks.values() for task in scores):
        notes.append(f"scored on a test split, so for the winner alone: {', '.join(tasks)}")
    return found


def _once(group: list[StoredTrial], notes: list[str]) -> list[StoredTrial]:
    """Each seed and fold once: a second folder of the same trial would feign certainty."""
    kept: dict[Any, StoredTrial] = {}
    for trial in sorted(group, key=lambda one: one.state != FINISHED):
        key = trial.name if trial.seed is None else (trial.seed, trial.fold)
        if key in kept:
            notes.append(f"{trial.name} is the same trial as {kept[key].name} and does not count")
        kept.setdefault(key, trial)
    counted = {id(trial) for trial in kept.values()}
    return [trial for trial in group if id(trial) in counted]


def _row(trials: list[StoredTrial], varied: list[str], objectives: Objectives, scores: _TestScores) -> Row:
    metric = objectives[0][0]
    measured = [one for one in trials if one.number(metric) is not None]
    used = [one for one in measured if one.state == FINISHED]
    early = [one for one in measured if one.state in EARLY]
    used += early
    reported = [number for trial in used if (number := trial.number(metric)) is not None]
    tests = [scores.parts.get(trial.hash or "", trial.result.get("test")) for trial in used]
    return Row(
        values={key: value_of(trials[0], key) for key in varied},
        trials=[trial.name for trial in trials],
        used=[trial.name for trial in used],
        seeds=list(dict.fromkeys(trial.seed for trial in used if trial.seed is not None)),
        cells=_cells(used, metric),
        by_fold=_by_fold(used),
        folds=trials[0].folds,
        state=_states(trials),
        early=len(early),
        lost=_lost(trials, used),
        error=next((trial.reason for trial in trials if trial.reason), None),
        objectives=[_mean(used, address) for address, _ in objectives],
        deviation=stdev(reported) if len(reported) > 1 else None,
        metrics=_means([trial.result.get("validation") for trial in used]),
        test=_means(tests),
        benchmark=_benchmarks(used, scores),
        seconds=_sum(_mean(used, "measured/seconds/train"), _mean(used, "measured/seconds/validation")),
        tokens_per_s=_mean(used, "measured/tokens_per_s"),
        peak_memory_bytes=max(_numbers(used, "measured/peak_memory_bytes"), default=None),
        predicted_memory_bytes=max(_numbers(used, "predicted/peak_memory_bytes"), default=None),
        packed=max(map(int, _numbers(used, "measured/packed")), default=None),
    )


def _by_fold(trials: Sequence[StoredTrial]) -> dict[int | None, list[str]]:
    folds = sorted({trial.fold for trial in trials}, key=lambda fold: -1 if fold is None else fold)
    return {fold: [trial.name for trial in trials if trial.fold == fold] for fold in folds}


def _cells(trials: Sequence[StoredTrial], metric: str) -> dict[Cell, float]:
    # Unknown seeds (of a damaged config) count as different.
    seeds = [-1 - place if trial.seed is None else trial.seed for place, trial in enumerate(trials)]
    numbers = [(trial.fold, trial.number(metric)) for trial in trials]
    return {(seed, fold): number for seed, (fold, number) in zip(seeds, numbers, strict=True) if number is not None}


def _lost(trials: list[StoredTrial], used: list[StoredTrial]) -> str:
    if not used:
        return ""
    counted = {id(trial) for trial in used}
    gone = Counter(
        "without a metric" if trial.state == FINISHED else trial.state
        for trial in trials
        if id(trial) not in counted and trial.state not in UNDER_WAY
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


def _benchmarks(trials: Sequence[StoredTrial], scores: _TestScores) -> dict[str, dict[str, float]]:
    own = [(trial.hash, table) for trial in trials if isinstance(table := trial.result.get("benchmark", {}), dict)]
    found = [{**table, **scores.benchmarks.get(identity or "", {})} for identity, table in own]
    names = dict.fromkeys(name for table in found for name in table)
    return {name: _means([table.get(name) for table in found]) for name in names}


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
    """The rows with their difference to the best one."""
    best = winner(ranking) or next(iter(ranking.rows), None)
    if best is None or best.mean is None:
        return ranking
    contenders = {row.trials[0]: _contender(row, trials, best) for row in ranking.rows if row.mean is not None}
    noise = training_noise([row.cells for row in ranking.rows if row.cells and not row.pruned and not row.lost])
    mine = contenders.pop(best.trials[0])
    priors = {trials[name].fold: prior for name in best.used if (prior := trials[name].result.get("prior"))}
    rivals = {row.trials[0]: one for row in ranking.baselines if (one := contender(row, ranking.path, mine))}
    found = find_intervals(ranking.metric, mine, [*contenders.values(), *rivals.values()], noise, priors)
    compared = [replace(best, own_interval=_around(best.mean, found.best)) if row is best else
                _with_interval(row, contenders, mine, found) for row in ranking.rows]  # fmt: skip
    return replace(
        ranking,
        rows=compared,
        baselines=[_beside(row, rivals.get(row.trials[0]), mine, found) for row in ranking.baselines],
        notes=[*ranking.notes, *found.notes, *_other_cells(best, compared)],
        noise=noise and (found.noise or noise),
        covers=_covered(found, noise),
        prior=prior_of(ranking.metric, ranking.goal, best.mean, found, [trials[name] for name in best.used]),
    )


def _contender(row: Row, trials: dict[str, StoredTrial], best: Row) -> Contender:
    refused = "ended early by the pruner" if row.pruned and row is not best else None
    if row.lost:
        refused = "survivors, as its other trials failed"
    files = {cell: trials[name].folder.predictions for cell, name in zip(row.cells, row.used, strict=True)}
    return Contender(row.trials[0], row.cells, files, refused)


def _with_interval(row: Row, contenders: dict[str, Contender], best: Contender, found: Intervals) -> Row:
    if row.mean is None:
        return row
    return with_difference(row, difference(contenders[row.trials[0]], best), found.halves.get(row.trials[0]))


def _beside(row: Row, rival: Contender | None, best: Contender, found: Intervals) -> Row:
    if rival is None:
        return row
    return with_difference(row, difference(rival, best), found.halves.get(rival.name))


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
        unknown = f"{said}; training noise is unknown, as nothing was trained to its end with a second seed"
        if found.noise is None:
            return unknown
        spread = f"the spread of the {found.noise.rows} rows (sd {found.noise.sd:.2g})"
        return f"{unknown}: for differences {spread} stands in for it"
    rows = f"{noise.rows} row{'s' * (noise.rows > 1)}"
    return f"{said}; and training noise: sd {noise.sd:.2g} over {noise.over}, pooled over {rows}"


def _with_regret(ranking: Ranking, trials: Sequence[StoredTrial]) -> Ranking:
    """The rows that ended early with their validations, and the chance that they would have won."""
    metric, goal = ranking.objectives[0]
    if not any(row.pruned for row in ranking.rows) or not metric.startswith("validation/"):
        return ranking
    known = [trial for trial in trials if trial.state == FINISHED or trial.state in EARLY]
    courses = {
        trial.name: replace(course_of(trial.folder, metric, goal), finished=trial.state == FINISHED) for trial in known
    }
    chance = chances(courses)
    rows = [_early(row, courses, chance) if row.pruned else row for row in ranking.rows]
    best = winner(ranking)
    each = [row.regret for row in rows if row.regret is not None and row.trials != (best.trials if best else None)]
    missed = 1 - float(np.prod([1 - one for one in each])) if each else None
    return replace(ranking, rows=rows, regret=missed)


def _early(row: Row, courses: dict[str, Course], chance: dict[str, float]) -> Row:
    counts = [len(courses[name].readings) for name in row.used[-row.early :]]
    chosen = [chance[name] for name in row.used if name in chance]
    return replace(row, readings=min(counts), regret=max(chosen, default=None))


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
