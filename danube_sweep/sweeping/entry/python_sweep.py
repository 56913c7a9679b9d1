"""`ds.sweep(…)`: a sweep from a call in Python, without an application of Hydra, with the same trials and folders."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hydra.core.override_parser.types import Override

from danube_sweep.composer import Composer, parse_sweep
from danube_sweep.config.schema import Sampler
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.folder_names import SWEEPS
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.entry.result_folders import fresh_sweep_dir
from danube_sweep.sweeping.propose.grid_cells import depends_on, expand, search_of
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_grid, run_search, run_sweep
from danube_sweep.terminal.screen import Terminal

SWEEPER = "hydra/sweeper="


def run_call(words: Sequence[str], folder: Path | None, terminal: Terminal) -> Path:
    """Runs the sweep that the overrides describe and returns its folder. Ends like `run_sweep`.

    Without a folder, it continues the newest sweep of the same call (sys.argv) that has trials without an end. If there
    is none, it starts one in multirun/. Raises ConfigError for another sweeper than ours and for a dry run.
    """
    own, searches = _sweeper(words)
    parsed, composer = parse_sweep(own), Composer()
    sweep, pruner = composer.sweep(_fixed(own, parsed))
    if sweep.dry_run:
        raise ConfigError("sweep.dry_run=true trains nothing; use ds.plan, or danube-sweep -m … --dry-run")
    with ExitStack() as stack:
        place = folder or _unfinished(terminal) or stack.enter_context(fresh_sweep_dir())
        if searches and sweep.sampler is not Sampler.grid:
            plan = PlannedSweep(SweepFolder(place.absolute()), sweep, pruner, search_of(parsed))
            run_search(plan, composer, terminal)
        else:
            planned = plan_grid(place, expand(parsed, sweep.max_trials), composer, terminal)
            assert planned is not None
            run_sweep(planned[0], terminal)
    return place


def _sweeper(words: Sequence[str]) -> tuple[list[str], bool]:
    """The overrides of the trials and of the sweep, and whether it is a search."""
    chosen = [word.removeprefix(SWEEPER) for word in words if word.startswith(SWEEPER)]
    for name in chosen:
        if name not in ("grid", "optuna"):
            raise ConfigError(f"{SWEEPER}{name}: ds.sweep has grid and optuna; others need danube-sweep -m")
    return [word for word in words if not word.startswith(SWEEPER)], chosen[-1:] == ["optuna"]


def _fixed(words: Sequence[str], parsed: Sequence[Override]) -> list[str]:
    swept = {one.get_key_element() for one in parsed if one.is_sweep_override()}
    pairs = zip(words, parsed, strict=True)
    return [word for word, one in pairs if not one.is_sweep_override() and not depends_on(word, swept)]


def _unfinished(terminal: Terminal) -> Path | None:
    for file in sorted(SWEEPS.glob("*/*/sweep.json"), reverse=True):
        folder = SweepFolder(file.parent)
        try:
            same = folder.read().get("command") == sys.argv
            waits = same and any(state_of(entry) is None for entry in folder.entries())
        except CheckpointError:  # damaged, or from another version
            continue
        if waits:
            terminal.note(f"{folder.path} was not finished by the same call: it goes on")
            return folder.path
    return None
