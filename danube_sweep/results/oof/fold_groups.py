"""Which trials of run and sweep folders belong together, and whether all their folds are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import State
from danube_sweep.config.stored import load_config
from danube_sweep.errors import UserError
from danube_sweep.results.trial_results import StoredTrial, read_trial, read_trials
from danube_sweep.results.varied_keys import by_row, value_of, varied_keys
from danube_sweep.storage.ensemble_folder import refuse_ensemble
from danube_sweep.storage.run_folder import RunFolder


@dataclass(frozen=True)
class FoldGroup:
    """Trials with folds that differ only in fold and seed."""

    values: dict[str, Any]
    """By the keys that vary between the groups."""
    name: str
    folds: int
    config: Config | None
    """Of one of its finished trials; None without one."""
    seeds: dict[int, list[RunFolder]]
    """The finished runs in the order of the folds, for each seed that has them all."""
    missing: dict[int, dict[int, str]]
    """For the other seeds, by fold: why it is missing."""

    def lacks(self) -> str:
        """`folds 1, 3 of 5 (3: oom)`, for each seed that lacks some."""
        return "; ".join(self._lacks(seed, states) for seed, states in self.missing.items())

    def _lacks(self, seed: int, states: dict[int, str]) -> str:
        numbers = ", ".join(map(str, states))
        reasons = ", ".join(f"{fold}: {state}" for fold, state in states.items() if state)
        several = f"seed {seed}: " if len(self.missing) + len(self.seeds) > 1 else ""
        return f"{several}fold{'s' * (len(states) > 1)} {numbers} of {self.folds}{f' ({reasons})' if reasons else ''}"


def find_groups(directories: Sequence[Path]) -> tuple[list[FoldGroup], list[str]]:
    """The groups of all trials with folds in run and sweep folders, and notes on trials that do not count.

    Raises CheckpointError for a folder that is neither.
    """
    notes: list[str] = []
    trials: list[StoredTrial] = []
    for directory in directories:
        trials += stored_trials(directory, notes)
    dealt = [trial for trial in trials if trial.folds is not None and trial.fold is not None]
    if len(dealt) < len(trials):
        notes.append(f"{len(trials) - len(dealt)} of {len(trials)} trials have no data.folds and do not count")
    varied = varied_keys(dealt)
    return [_group(rows, varied, notes) for rows in by_row(dealt)], notes


def stored_trials(directory: Path, notes: list[str]) -> list[StoredTrial]:
    """The trial of a run's folder, or all of a sweep's. Raises CheckpointError for a folder that is neither."""
    refuse_ensemble(
        directory,
        "give the folders of its runs or sweeps",
    )
    run = RunFolder(directory)
    if run.config.is_file() or run.trial.is_file():
        return [read_trial(run, notes)]
    trials, found = read_trials(directory)
    notes += found
    return trials


def _group(trials: list[StoredTrial], varied: list[str], notes: list[str]) -> FoldGroup:
    folds = trials[0].folds or 0
    runs: dict[int, dict[int, RunFolder]] = {}
    states: dict[int, dict[int, str]] = {}
    config: Config | None = None
    for trial in trials:
        seed, fold = trial.seed or 0, trial.fold or 0
        runs.setdefault(seed, {})
        states.setdefault(seed, {})[fold] = trial.state
        if trial.state != State.finished.value or fold in runs[seed]:
            continue
        found, states[seed][fold] = _unchanged(trial, notes)
        if found is not None:
            config = found
            runs[seed][fold] = trial.folder
    seeds = {seed: [found[fold] for fold in range(folds)] for seed, found in runs.items() if len(found) == folds}
    missing = {
        seed: {fold: states[seed].get(fold, "") for fold in range(folds) if fold not in found}
        for seed, found in runs.items()
        if seed not in seeds
    }
    values = {key: value_of(trials[0], key) for key in varied}
    return FoldGroup(values, _name(values, trials[0]), folds, config, seeds, missing)


def _name(values: dict[str, Any], trial: StoredTrial) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or f"the group of {trial.name}"


def _unchanged(trial: StoredTrial, notes: list[str]) -> tuple[Config | None, str]:
    """The config of a trial whose files are unchanged since it ran; otherwise None and the reason."""
    try:
        config = load_config(trial.folder.config)
        if trial.folder.hash_of(config) == trial.hash:
            return config, trial.state
    except UserError as error:
        notes.append(f"{trial.name} does not count: {error}")
        return None, "unreadable"
    notes.append(f"{trial.name} does not count: its data or model files were changed since; put back what they were")
    return None, "changed"
