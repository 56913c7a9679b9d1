"""compose, plan, train, sweep and load: overrides in, objects out, by the code of the command line."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from danube_sweep import composer
from danube_sweep.api.call_words import RUN_DIR, SWEEP_DIR, as_command, checked_words, our_errors, path_of, split_folder
from danube_sweep.api.data_argument import with_data
from danube_sweep.api.handles import Ensemble, Run, Sweep, check_folder
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.weights_identity import shown_by
from danube_sweep.errors import CheckpointError, ConfigError, DanubeSweepError
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.folder_names import run_folder_name
from danube_sweep.storage.ownership import Kind, check
from danube_sweep.storage.run_folder import RunFolder, interrupted_run, remove_if_empty
from danube_sweep.sweeping.entry.python_sweep import SWEEPER, run_call
from danube_sweep.sweeping.execute.chosen_count import ranks_of
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.own_tasks import run_task
from danube_sweep.sweeping.execute.shown_child import run_in_child
from danube_sweep.sweeping.execute.train_run import without_effect
from danube_sweep.sweeping.plan_cells import Planned, plan_cells, varied_values
from danube_sweep.terminal.byte_bar import byte_bar
from danube_sweep.terminal.screen import Terminal

if TYPE_CHECKING:
    import pandas

    from danube_sweep.api.data_argument import DataArgument

WIDEST = 110
"""Columns of what is printed where there is no terminal: a notebook's output is about as wide."""


@our_errors()
def compose(*overrides: str, data: "DataArgument | None" = None) -> Config:
    """The checked config of the trial that `danube-sweep OVERRIDES…` would train.

    Raises ConfigError, in one line, for a mistake in the overrides.
    """
    return composer.compose(_of_one(with_data(checked_words(overrides), data)))


@our_errors()
def plan(*overrides: str, data: "DataArgument | None" = None) -> "pandas.DataFrame":
    """What `danube-sweep plan` says: a row for every combination of the swept values; bytes, seconds, does it fit.

    Nothing is loaded. A combination with a mistake has it in the column `error`; raises UserError if all have one.
    """
    import pandas

    words = with_data(checked_words(overrides), data)
    planned, _ = plan_cells(words, multirun=composer.first_swept(words) is not None)
    plans = pandas.json_normalize([_plain(one) for one in planned], sep="/")
    return pandas.concat([pandas.DataFrame(varied_values(planned)), plans], axis=1)


@our_errors()
def train(*overrides: str, data: "DataArgument | None" = None, folder: "str | os.PathLike[str] | None" = None) -> Run:
    """Trains the trial that the overrides describe, in a child, and returns its run.

    A run in `folder` that was interrupted goes on, one that has finished is reported. Without a folder, an interrupted
    run of the same trial in outputs/ goes on, else there is a new one. A first interrupt (Ctrl-C, or the kernel's)
    stops it after a checkpoint, a second one at once. Raises UserError for a mistake, Interrupted,
    and TrialFailed.
    """
    words, place = split_folder(checked_words(overrides, takes=[RUN_DIR]), RUN_DIR, folder)
    words = _of_one(with_data(words, data))
    with shown_by(byte_bar), as_command(*words):
        config = composer.compose(words)
        identity = trial_hash(config)
        chosen = (place or _interrupted(identity) or run_folder_name(datetime.now(), identity)).absolute()
        check(chosen, Kind.run)
        chosen.mkdir(parents=True, exist_ok=True)
        if line := without_effect(words):
            Terminal().note(line)
        try:
            job = Job(chosen, Path.cwd(), dict(os.environ), config, ranks=ranks_of(config))
            run_in_child(run_task, job, on_cpu=config.device.accelerator == "cpu")
        except DanubeSweepError:
            remove_if_empty(chosen)
            raise
    return Run(chosen)


@our_errors()
def sweep(*overrides: str, data: "DataArgument | None" = None, folder: "str | os.PathLike[str] | None" = None) -> Sweep:
    """Trains every combination of the swept values (`"lora.rank=8,16"`), each in a child, and returns the sweep.

    With "hydra/sweeper=optuna" it is a search. A sweep in `folder` goes on; without a folder, one of the same call
    that has trials without an end does, else there is a new one in multirun/. An interrupt stops it after checkpoints.
    Raises UserError for a mistake, Interrupted, and SweepFailed unless every trial finished or was pruned: then
    `load` has the sweep.
    """
    words, place = split_folder(checked_words(overrides, takes=[SWEEPER, SWEEP_DIR]), SWEEP_DIR, folder)
    words = with_data(words, data)
    with shown_by(byte_bar), as_command("-m", *words), _terminal() as terminal:
        return Sweep(run_call(words, place, terminal))


def load(path: "str | os.PathLike[str]", *, trust: bool = False) -> Run | Sweep | Ensemble:
    """The run, the sweep or the ensemble in a folder; `trust` is that of `danube-sweep predict`.

    Raises CheckpointError for a folder that is none of them, or missing.
    """
    folder = path_of(path, "path")
    check_folder(folder, "run, a sweep or an ensemble")
    if (folder / "night.json").is_file():
        there = [str(folder / name) for name in ("sweep", "ensemble", "refit") if (folder / name).is_dir()]
        raise CheckpointError(f"{folder} is a night; load one of its folders ({', '.join(there) or 'none yet'})")
    if RunFolder(folder).config.is_file():
        return Run(folder, trust=trust)
    if (folder / "sweep.json").is_file() or any(folder.glob("*/config.yaml")):
        return Sweep(folder, trust=trust)
    if EnsembleFolder(folder).file.is_file():
        return Ensemble(folder, trust=trust)
    raise CheckpointError(
        f"{folder} is no run, no sweep and no ensemble: it has no config.yaml, sweep.json or ensemble.json; give a "
        "folder like outputs/<date>/<time>-<hash> or multirun/<date>/<time>"
    )


def _of_one(words: Sequence[str]) -> list[str]:
    if (word := composer.first_swept(words)) is not None:
        field, _, values = word.partition("=")
        way_out = f"""for a list write {field}=[{values}], or quote a value with a comma in it: '{field}="{values}"'"""
        raise ConfigError(f"{word} names several values: ds.sweep trains each of them; {way_out}")
    return list(words)


def _plain(one: Planned) -> dict[str, Any]:
    return {**({} if one.plan is None else one.plan.plain()), "error": one.error}


def _interrupted(identity: str) -> Path | None:
    found = interrupted_run(identity)
    if found is not None:
        print(f"{found} was interrupted in the same trial: it goes on")
    return found


def _terminal() -> Terminal:
    # On whatever sys.stdout is now. In a notebook rich would draw each line as HTML, or bars, as FORCE_COLOR is set.
    if sys.stdout.isatty():
        return Terminal(Console(file=sys.stdout))
    return Terminal(Console(file=sys.stdout, force_jupyter=False, force_terminal=False, width=WIDEST))
