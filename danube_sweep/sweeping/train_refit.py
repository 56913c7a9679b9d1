"""`danube-sweep refit`: the best settings trained on training and validation rows, one model or several that average.

One model is a run in the folder. Several are the trials of a sweep in its `trials`, and the folder is an ensemble with
equal weights.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from danube_sweep import paths
from danube_sweep.benchmark.scored_parts import tasks_on_test
from danube_sweep.config.blended_target import blended_target
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Baseline, Config, NoPruner, Sweep, Target
from danube_sweep.config.schema.states import State
from danube_sweep.config.validate import check_runs, validate
from danube_sweep.errors import CheckpointError, ConfigError, DanubeSweepError, UserError
from danube_sweep.results import refit_settings
from danube_sweep.results.ranking_table import plain
from danube_sweep.results.refit_settings import Chosen
from danube_sweep.results.trial_results import read_trials
from danube_sweep.storage import predictions
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.locks import is_held
from danube_sweep.storage.ownership import (
    Kind,
    give_back,
    is_blank,
    is_ours,
    remove_files,
    remove_temporaries,
    take_over,
)
from danube_sweep.storage.refit_file import NAME, write_refit
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_trials, run_sweep
from danube_sweep.terminal.screen import Terminal


@dataclass(frozen=True)
class Wanted:
    """`folds`: a model for each fold instead of one on all rows; 0 takes the sweep's own number, None is without.

    `score_test`: the model is scored on the test part, once, at its end.
    """

    top: int = 1
    seeds: int = 1
    folds: int | None = None
    score_test: bool = False


@dataclass(frozen=True)
class Model:
    """One model of the average: a trial on all rows, or one for each fold."""

    chosen: Chosen
    seed: int
    trials: list[tuple[Config, list[str]]]
    """Config and overrides."""


def run_refit(source: Path, output: Path, wanted: Wanted, terminal: Terminal) -> None:
    """Chooses the settings, trains them on all rows, and prints their expected scores.

    Raises CheckpointError and ConfigError before anything is written. Later it raises Interrupted, TrialFailed or
    SweepFailed, with a line on how to continue.
    """
    _check_output(output)
    found, notes = refit_settings.find_chosen(source, wanted.top)
    models, lines = [], []
    for chosen in found:
        some, said = _models(chosen, wanted)
        models += some
        lines.append(f"{chosen.name}: {said}")
    trials = [trial for model in models for trial in model.trials]
    if wanted.score_test:
        trials = [(_scored_on_test(config, len(trials)), overrides) for config, overrides in trials]
    _check_trials(trials)
    _check_average(found, trials)
    for line in [*notes, *lines]:
        terminal.note(line)
    described = [
        {"row": one.name, "promised": one.promise.said(), "plan": line} for one, line in zip(found, lines, strict=True)
    ]
    _clear(output)
    if len(trials) == 1:
        _train_alone(trials[0][0], source, output, described)
    else:
        _train_together(models, source, output, described, terminal)
    if wanted.folds is None or not _scored_by_folds(output, terminal):
        for one in found:
            terminal.note(
                f"the validation rows promised, before they were trained on, for {one.name}: {one.promise.said()}"
            )
    shown = paths.from_here(output)
    if trials[0][0].head.target is not Target.nothing:
        terminal.note(f"predict with: danube-sweep predict {shown} test.csv -o submission.csv")


def _scored_by_folds(output: Path, terminal: Terminal) -> bool:
    """Keeps and prints the out-of-fold scores of a model for each fold; returns whether there are some."""
    from danube_sweep.results.ensemble.fold_answers import write_fold_answers

    try:
        terminal.note(plain(write_fold_answers(EnsembleFolder(output))))
    except UserError as error:
        terminal.note(plain(f"no out-of-fold predictions: {error}"))
        return False
    return True


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not (output.is_dir() and _is_free(output))):
        raise CheckpointError(
            f"-o {output} exists already; choose a new or empty folder. An interrupted refit goes on with: "
            f"danube-sweep resume {output}"
        )
    if not output.absolute().parent.is_dir():
        raise CheckpointError(f"-o {output}: there is no folder {output.parent}; make it or choose another place")


def _is_free(output: Path) -> bool:
    """Whether the folder is empty, or a killed refit left it before it had begun to train."""
    if is_blank(output, Kind.run) or is_blank(output, Kind.ensemble):
        return True
    run, trials = RunFolder(output), SweepFolder(output / "trials")
    if is_ours(output, Kind.run):
        begun = any(file.exists() for file in (run.config, run.result, run.metrics, run.elsewhere, run.checkpoints))
        return (output / NAME).exists() and not (begun or is_held(run.lock))
    trained = any(entry.folder.result.exists() or entry.folder.has_checkpoints for entry in trials.entries())
    return is_ours(output, Kind.ensemble) and not (EnsembleFolder(output).file.exists() or trained)


def _clear(output: Path) -> None:
    """Removes what a killed refit left in a free folder."""
    for kind in (Kind.run, Kind.ensemble):
        remove_temporaries(output, kind)
    if is_ours(output, Kind.run):
        remove_files(output, Kind.run)
    elif is_ours(output, Kind.ensemble):
        _withdraw(SweepFolder(output / "trials"), output)


def _models(chosen: Chosen, wanted: Wanted) -> tuple[list[Model], str]:
    """The models of some settings, and a line on how they train."""
    config = refit_settings.settings_of(chosen)
    seeds = refit_settings.seeds_of(chosen, wanted.seeds)
    several = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    if wanted.folds is None:
        steps = refit_settings.steps_of(chosen, config)
        each = [[refit_settings.on_all_rows(chosen, config, seed, steps)] for seed in seeds]
        said = f"{steps.said}; {several}"
    else:
        folds = wanted.folds or config.data.folds
        if folds is None:
            raise ConfigError("--folds: the sweep has no folds to take the number from; give it, like --folds 5")
        each = [[refit_settings.on_fold(config, seed, folds, fold) for fold in range(folds)] for seed in seeds]
        said = f"a model for each of {folds} folds, at its best step on that fold; {several}"
    models = [
        Model(chosen, seed, [(one, refit_settings.overrides_of(chosen, one)) for one in configs])
        for seed, configs in zip(seeds, each, strict=True)
    ]
    return models, said


def _scored_on_test(config: Config, models: int) -> Config:
    if models > 1:
        raise ConfigError(
            f"--score-test scores one model, and these are {models}; leave it out, predict the test rows and score them"
        )
    found = replace(config, trainer=replace(config.trainer, score_test=True))
    validate(found)
    return found


def _check_trials(trials: Sequence[tuple[Config, list[str]]]) -> None:
    for config, _ in trials:
        check_runs(config.device)
        if len(trials) > 1 and config.head.target is Target.nothing:
            raise ConfigError("head=lm gives no answers to average; refit one model: --top 1 --seeds 1, no --folds")


def _check_average(found: Sequence[Chosen], trials: Sequence[tuple[Config, list[str]]]) -> None:
    """Raises ConfigError if the answers of several rows have no mean, which predict would only say after training."""
    where = f"--top {len(found)}"
    blended_target([config for config, _ in trials], where)
    first, *others = [(one.name, _classes(one)) for one in found]
    for name, classes in others:
        if classes is not None and first[1] is not None and classes != first[1]:
            raise ConfigError(f"{where}: {name} has other classes than {first[0]}, so their answers have no mean")


def _classes(chosen: Chosen) -> list[str] | None:
    """The classes that settings were trained with; None if their predictions are missing or damaged."""
    with suppress(*predictions.DAMAGED):
        return predictions.class_names(predictions.columns(chosen.trials[0].folder.predictions))
    return None


def _train_alone(config: Config, source: Path, output: Path, described: list[dict[str, Any]]) -> None:
    from danube_sweep.sweeping.execute.train_run import train_run

    take_over(output, Kind.run)
    try:
        write_refit(output, source, described)
        train_run(replace(config, trainer=replace(config.trainer, benchmark_test=True)), output)
    except DanubeSweepError:
        if not RunFolder(output).config.is_file():  # nothing has begun
            (output / NAME).unlink(missing_ok=True)
            give_back(output)
            with suppress(OSError):
                output.rmdir()
        raise


def _train_together(
    models: Sequence[Model], source: Path, output: Path, described: list[dict[str, Any]], terminal: Terminal
) -> None:
    known = _finished(source)
    hashes = {id(config): trial_hash(config) for model in models for config, _ in model.trials}
    new = [trial for model in models for trial in model.trials if hashes[id(trial[0])] not in known]
    ensemble = EnsembleFolder(output)
    # On a CPU, too, one at a time is a slot: those that may share a backbone train as a pack.
    sweep = Sweep(baseline=Baseline.none, score_test=False)
    plan = PlannedSweep(SweepFolder(ensemble.trials.absolute()), sweep, NoPruner(), ranked=False)
    if reused := sum(len(model.trials) for model in models) - len(new):
        terminal.note(f"{reused} of the models are finished trials of {source}, which are taken as they are")
    try:
        take_over(output, Kind.ensemble)
        entries = plan_trials(plan, new) if new else []
        places = {**known, **{entry.hash: entry.path for entry in entries}}
        for entry in entries:
            write_refit(entry.path, source, described)
        write_refit(output, source, described)
        ensemble.write([_member(model, models, places, hashes) for model in models], {})  # whole once all are trained
    except BaseException:  # Ctrl-C, a full disk: nothing has begun
        _withdraw(plan.folder, output)
        raise
    if new:
        if unscored := tasks_on_test(new[0][0]):
            terminal.note(
                f"trainer.benchmark: several models are not scored on {', '.join(unscored)}, as it has a test split; "
                "score one with: danube-sweep benchmark FOLDER"
            )
        run_sweep(plan, terminal)


def _withdraw(trials: SweepFolder, output: Path) -> None:
    for entry in trials.entries():
        remove_files(entry.path, Kind.run)
    for folder, kind in ((trials.path, Kind.sweep), (output, Kind.ensemble)):
        if folder.is_dir():
            remove_files(folder, kind)


def _member(model: Model, models: Sequence[Model], places: dict[str | None, Path], hashes: dict[int, str]) -> Weighted:
    own = [hashes[id(config)] for config, _ in model.trials]
    name = f"{model.chosen.name}, seed={model.seed}"
    return Weighted(name, 1 / len(models), 1.0, [places[one] for one in own], own)


def _finished(source: Path) -> dict[str | None, Path]:
    """The finished trials of a sweep by their hashes."""
    if RunFolder(source).config.is_file():
        return {}
    trials, _ = read_trials(source)
    return {trial.hash: trial.folder.path for trial in trials if trial.state == State.finished.value}
