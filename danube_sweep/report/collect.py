"""A sweep folder, running or ended, read into the data of the page."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from danube_sweep.benchmark.published import published_of
from danube_sweep.data.description import restored
from danube_sweep.report.comparability import compared, environment_of
from danube_sweep.report.factor_effects import find_factors
from danube_sweep.report.importance import FEWEST, Importance
from danube_sweep.report.learning_curves import Curve, curve_metric, read_curve
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.row_predictions import read_seen
from danube_sweep.report.slot_times import timeline
from danube_sweep.report.validation_rows import validation_rows
from danube_sweep.report.verdict import references_of, verdict_of
from danube_sweep.results.rank import rank_trials
from danube_sweep.results.rows import Row
from danube_sweep.results.trial_results import StoredTrial, read_trials
from danube_sweep.results.two_sweeps import read_two

_POINTS: Final = 6000
"""Of all curves together, so that a page of many trials stays small."""


def gather(path: Path, drawn: datetime | None = None, beside: Path | None = None, second: Path | None = None) -> Report:
    """Reads a sweep folder, for a page in the folder `beside`, by default the sweep's own.

    A `second` sweep's rows are ranked among those of the first, by the metric of the first. Raises CheckpointError for
    a folder that is not a sweep or from another version.
    """
    paths = [path] if second is None else [path, second]
    files = sum(1 for one in paths for _ in one.glob("*/predictions.parquet"))
    with Importance(wanted=files >= FEWEST) as importance:
        return _gathered(paths, beside or path, drawn or datetime.now(UTC), importance)


def _gathered(paths: Sequence[Path], beside: Path, drawn: datetime, importance: Importance) -> Report:
    path, *others = paths
    trials, notes = read_two(paths) if others else read_trials(path)
    ranking = rank_trials(path, trials, notes, others=others)
    by_name = {trial.name: trial for trial in trials}
    shown = [_shown(f"r{number}", row, by_name) for number, row in enumerate(ranking.rows, start=1)]
    rows = {one.key: one.row for one in shown}
    factors = find_factors(rows, ranking.varied)
    counted = Counter(trial.state for trial in trials)
    references = references_of(trials, ranking.metric)
    references |= {f"{row.baseline} baseline": row.mean for row in ranking.baselines if row.mean is not None}
    answer = verdict_of(ranking, shown, factors)
    return Report(
        paths=list(paths),
        beside=beside,
        drawn=drawn,
        ranking=ranking,
        shown=shown,
        baselines=[_shown(f"b{place}", row, {}) for place, row in enumerate(ranking.baselines, start=1)],
        curves=_curves(trials, ranking.metric),
        answer=answer,
        factors=factors,
        importance=importance.of(ranking.rows, factors, ranking.goal),
        timeline=timeline(trials, drawn.timestamp()),
        compared=compared(trials, [one.seen for one in shown], _metrics(ranking.rows, ranking.metric)),
        published=published_of([str(path) for path in {trial.config.get("model.path") for trial in trials} if path]),
        references=references,
        validation=validation_rows(_first_trials(answer.best, shown)),
        counted=dict(counted),
        data=_data(trials),
    )


def _first_trials(best: Shown | None, shown: Sequence[Shown]) -> list[tuple[str, StoredTrial]]:
    """The first trial of each row that has a metric, that of the best one first."""
    rows = [] if best is None else [best, *(one for one in shown if one is not best)]
    return [(one.key, one.used[0]) for one in rows if one.used]


def _shown(key: str, row: Row, trials: dict[str, StoredTrial]) -> Shown:
    used = [trials[name] for name in row.used]
    shared = any((trial.number("measured/packed") or 1.0) > 1 for trial in used)
    return Shown(
        key=key,
        row=row,
        trials=[trials[name] for name in row.trials if not row.baseline],
        used=used,
        seen=read_seen([trial.folder.predictions for trial in used]),
        memory_bytes=(row.predicted_memory_bytes if shared else None) or row.peak_memory_bytes,
        seconds=row.seconds,
        shared=shared,
    )


def _data(trials: Sequence[StoredTrial]) -> list[tuple[list[str], list[str]]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for trial in trials:
        description = restored(environment_of(trial).get("data"))
        if description is not None:
            found.setdefault(tuple(description.lines()), []).append(trial.name)
    return [(list(lines), names) for lines, names in found.items()]


def _metrics(rows: Sequence[Row], ranked: str) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return list(dict.fromkeys([ranked.rpartition("/")[2], *names]))


def _curves(trials: Sequence[StoredTrial], metric: str) -> dict[str, Curve]:
    name = curve_metric(metric)
    most = min(60, max(12, _POINTS // max(len(trials), 1)))
    found: dict[str, Curve] = {}
    for trial in trials:
        curve = read_curve(trial.folder.metrics, name, most)
        if curve is not None:
            found[trial.name] = curve
    return found
