"""The settings of `danube-sweep refit`: those of a sweep's best rows, or of a run, for training and validation rows.

Settings, seeds and steps follow from the folder alone. Nothing is trained here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from danube_sweep.config.schema import Comparison, Config
from danube_sweep.config.stored import load_config
from danube_sweep.config.validate import validate
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.planner.what_fits import with_micro_batch
from danube_sweep.results.intervals import own_intervals
from danube_sweep.results.rank import rank_trials
from danube_sweep.results.ranking_table import named, nothing_learned_lines, number, plain
from danube_sweep.results.rows import FINISHED, Ranking, Row, refuse_unread, winner
from danube_sweep.results.trial_results import StoredTrial, read_trial, read_trials
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.soup_file import refuse_soup


@dataclass(frozen=True)
class Promise:
    """The validation scores of settings, before they were trained on those rows."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    trials: int

    def said(self) -> str:
        """`validation/log_loss 0.98, 95 % 0.95 .. 1.01 (mean of 3 trials)`."""
        sure = "" if self.interval is None else ", 95 % {} .. {}".format(*map(number, self.interval))
        return f"{self.metric} {number(self.value)}{sure}" + (
            f" (mean of {self.trials} trials)" if self.trials > 1 else ""
        )


@dataclass(frozen=True)
class Chosen:
    """Settings to train again: the trials of a sweep that differ only in seed and fold, or a run."""

    name: str
    trials: list[StoredTrial]
    """With results, the best first."""
    promise: Promise

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial.seed for trial in self.trials if trial.seed is not None))


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of a refit, as those of the trials times the growth of the training part."""

    scheduled: int
    stop: int
    said: str


def find_chosen(path: Path, top: int) -> tuple[list[Chosen], list[str]]:
    """The best `top` rows of a sweep, or the run in `path`, and notes on them.

    Raises CheckpointError for a folder that is neither or has nothing finished, ConfigError for too large a `top` and
    for trials that no rows validate.
    """
    run = RunFolder(path)
    if run.config.is_file() or run.trial.is_file():
        refuse_soup(path, "refit the sweep that its trials are of")
        if top > 1:
            raise ConfigError(f"--top {top}: {path} is one run; give a sweep's folder, or --seeds {top}")
        return [_of_run(path, read_trial(run, []))], []
    trials, notes = read_trials(path)
    ranking = rank_trials(path, trials, notes)
    refuse_unread(ranking)
    best = winner(ranking)
    if best is None or not best.used:
        unvalidated = any(trial.result.get("rows") and not trial.result.get("validation") for trial in trials)
        why = "no rows validate its trials" if unvalidated else "it has no finished trial"
        raise CheckpointError(f"{path}: {why}, so that no settings can be chosen; give a sweep that was ranked")
    rows = [best, *(row for row in ranking.rows if row is not best and row.used and not row.lost)]
    if top > len(rows):
        raise ConfigError(f"--top {top}: {path} has {len(rows)} row{'s' * (len(rows) > 1)} with a result; give fewer")
    by_name = {trial.name: trial for trial in trials}
    said = [*map(plain, nothing_learned_lines(ranking))]
    return [_of_row(ranking, row, by_name) for row in rows[:top]], said


def _of_run(path: Path, trial: StoredTrial) -> Chosen:
    metrics = trial.result.get("validation") or {}
    if trial.state != "finished":
        raise CheckpointError(f"{path} is {trial.state}; finish it with: danube-sweep resume {path}")
    if not metrics:
        raise ConfigError(f"{path}: no rows validate it, so it trains on all of its rows already; give another run")
    config = load_config(trial.folder.config)
    value = {config.objective: float(metrics[config.objective])}
    interval = own_intervals(trial.folder.predictions, value).get(config.objective)
    promise = Promise(f"validation/{config.objective}", value[config.objective], interval, 1)
    return Chosen(str(path), [trial], promise)


def _of_row(ranking: Ranking, row: Row, trials: dict[str, StoredTrial]) -> Chosen:
    sign = -1 if ranking.goal == "maximize" else 1
    used = sorted(zip(row.used, row.cells.values(), strict=True), key=lambda one: sign * one[1])
    interval = row.own_interval
    name = ranking.metric.removeprefix("validation/")
    if interval is None and len(used) == 1 and name != ranking.metric:
        interval = own_intervals(trials[used[0][0]].folder.predictions, {name: used[0][1]}).get(name)
    assert row.mean is not None
    return Chosen(
        plain(named(row)),
        [trials[name] for name, _ in used],
        Promise(ranking.metric, row.mean, interval, len(used)),
    )


def settings_of(chosen: Chosen) -> Config:
    """The config of the best trial, with the micro-batch that its sweep has given it.

    Raises CheckpointError for data or model files that have changed since, ConfigError where no rows validated it.
    """
    trial = chosen.trials[0]
    config = load_config(trial.folder.config)
    if trial.folder.hash_of(config) != trial.hash:
        raise CheckpointError(
            f"{trial.folder.path}: its data or model files were changed since it chose these settings; put back what "
            "they were, or start a new sweep"
        )
    if not config.data.validates:
        raise ConfigError(f"{trial.folder.path}: no rows validate it, so it trains on all of its rows already")
    return with_micro_batch(config, trial.folder.micro_batch(config))


def seeds_of(chosen: Chosen, count: int) -> list[int]:
    """So many seeds: those that the settings were trained with, the best first, then the next numbers."""
    own = chosen.seeds or [0]
    return [*own, *range(max(own) + 1, max(own) + 1 + count)][:count]


def on_all_rows(chosen: Chosen, config: Config, seed: int, steps: Steps) -> Config:
    """The trial on training and validation rows, to the stopping step; of several folds the choice has no meaning.

    Raises ConfigError for settings that need validations.
    """
    trainer = replace(
        config.trainer,
        max_steps=steps.scheduled,
        stop_after=None if steps.stop == steps.scheduled else steps.stop,
        validate_every=None,
        patience=None,
        best_by=None,
    )
    data = replace(config.data, fold=None if config.data.folds is None else 0, train_on_validation=True)
    found = replace(config, seed=seed, name=None, data=data, trainer=trainer)
    validate(found)
    return found


def on_fold(config: Config, seed: int, folds: int, fold: int) -> Config:
    """The trial that one of `folds` validates. Raises ConfigError for data that cannot be divided so."""
    found = replace(config, seed=seed, name=None, data=replace(config.data, folds=folds, fold=fold))
    validate(found)
    return found


def steps_of(chosen: Chosen, config: Config) -> Steps:
    """The steps on all rows: those to the best validation, times the growth of the training part; means over trials.

    Trials that ended early count only where no other finished: their best step is that of their pause.
    Raises CheckpointError for a trial whose files do not state its steps.
    """
    trials = [trial for trial in chosen.trials if trial.state == FINISHED] or chosen.trials
    counted = [_steps_of(trial, config) for trial in trials]
    total = max(1, round(fmean(steps * growth for _, steps, growth in counted)))
    stop = min(total, max(1, round(fmean(best * growth for best, _, growth in counted))))
    own, growth = fmean(best for best, _, _ in counted), fmean(growth for _, _, growth in counted)
    of = f"mean best step {own:.4g}" if len(counted) > 1 else f"best step {own:.4g}"
    course = "" if stop == total else f", on the learning rate's course over {total}"
    return Steps(total, stop, f"{stop} steps{course}: {of} times {growth:.4g} for the added validation rows")


def _steps_of(trial: StoredTrial, config: Config) -> tuple[int, int, float]:
    """Best step, scheduled steps, and how much the validation rows enlarge the training part."""
    rows: dict[str, Any] = trial.result.get("rows") or {}
    environment = read_json(trial.folder.environment)
    total = environment.get("scheduled_steps", environment.get("total_steps", trial.result.get("steps")))
    best, train, validation = trial.result.get("best_step"), rows.get("train"), rows.get("validation")
    if not (isinstance(total, int) and best and train and validation):
        raise CheckpointError(f"{trial.folder.path}: its files do not state its steps and rows; train it again")
    doubled = isinstance(config.data, Comparison) and config.data.swap_augment
    return int(best), max(total, int(best)), 1 + validation * (2 if doubled else 1) / train


def overrides_of(chosen: Chosen, config: Config) -> list[str]:
    """The overrides of a refit: those of its trial, with the changes of the refit."""
    changed: dict[str, Any] = {"seed": config.seed}
    if config.data.train_on_validation:
        changed |= {"data.train_on_validation": "true", "trainer.max_steps": config.trainer.max_steps}
        changed |= {"trainer.stop_after": config.trainer.stop_after or "null", "trainer.validate_every": "null"}
        changed |= {"trainer.patience": "null", "trainer.best_by": "null"}
    if config.data.folds is not None:
        changed |= {"data.folds": config.data.folds, "data.fold": config.data.fold}
    kept = [one for one in _stored(chosen.trials[0]) if one.lstrip("+~").partition("=")[0] not in changed]
    return [*kept, *(f"{key}={value}" for key, value in changed.items())]


def _stored(trial: StoredTrial) -> Sequence[str]:
    stated = trial.folder.stated_trial() or {}
    return [str(one) for one in stated.get("overrides") or []]
