"""A sweep that goes on: its folder, with changed settings if any."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danube_sweep.composer import Composer
from danube_sweep.config.schema import NoPruner, Sampler, Sweep
from danube_sweep.config.stored import load_config, load_sweep, plain_sweep
from danube_sweep.config.validate.check_sweep import check_metric, check_same_objectives, objectives
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.recovery import mend, tracked
from danube_sweep.storage.made_here import made_here
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.execute.asked_devices import COUNT, asked_count
from danube_sweep.sweeping.propose.grid_cells import check_cells, shared
from danube_sweep.sweeping.propose.search_space import Search, recognised
from danube_sweep.sweeping.shared_sweep import settle_locks
from danube_sweep.sweeping.start_sweep import PlannedSweep, Submit, describe, run_sweep, shrink_to_fit
from danube_sweep.terminal.screen import Terminal


def resume_sweep(
    path: Path, changes: Sequence[str], terminal: Terminal, submit: Submit | None = None, *, patient: bool = False
) -> None:
    """Continues the sweep in `path`, with changed settings if any (`sweep.retry=[failed]`). Ends like `run_sweep`.

    `device.count=N` is the one setting of its trials that can change, as it is no part of them. `submit` and `patient`
    are those of `PlannedSweep`. Raises CheckpointError for a folder that is no sweep or of another version, ConfigError
    for a change that a sweep cannot take.
    """
    folder = SweepFolder(path.absolute())
    stored = folder.read()
    # An agent's sweep has its settings elsewhere.
    if any(change.startswith("sweep.dry_run=") for change in changes):
        raise ConfigError("sweep.dry_run: give --dry-run with the sweep's own command and hydra.sweep.dir=…")
    counts = frozenset(asked_count(folder, changes))
    changes = [change for change in changes if not change.startswith(COUNT)]
    sweep, pruner = load_sweep(stored.get("settings") or plain_sweep(Sweep(), NoPruner()), changes)
    if sweep.sampler is Sampler.cmaes and not made_here(folder.path):
        raise CheckpointError(
            f"{path} was not made here, and sweep.sampler=cmaes reads a pickle from {folder.history.name}, which can "
            f"run code; go on with: danube-sweep resume {path} sweep.sampler=tpe"
        )
    search = stored.get("search")
    _check_changes(folder, stored, changes, sweep)
    config_dir = stored.get("config_dir")
    plan = PlannedSweep(
        folder,
        sweep,
        pruner,
        None if search is None else Search(search["fixed"], recognised(search["space"])),
        None if config_dir is None else Path(config_dir),
        stored.get("config_name", "config"),
        submit=submit,
        patient=patient,
        ranked=stored.get("ranked", True),
        tracking=stored.get("tracking", {}),
        counts=counts,
    )
    composer = Composer(config_dir=plan.config_dir, config_name=plan.config_name)
    settle_locks(folder, sweep)
    with folder.locked():
        mend(folder, terminal.note)
        if any(re.match(r"sweep\.(metric|goal)=", change) for change in changes):  # stays with the sweep
            describe(plan, stored)
        if {"invalid", "all"} & set(sweep.retry):
            _recheck(plan, composer, terminal)
    run_sweep(plan, terminal, composer)


def _check_changes(folder: SweepFolder, stored: Mapping[str, Any], changes: Sequence[str], sweep: Sweep) -> None:
    """Raises ConfigError for settings that the stored sweep cannot take, before anything is written."""
    if stored.get("search") is not None and sweep.sampler is Sampler.grid:
        raise ConfigError("sweep.sampler=grid runs every cell, and this sweep is a search; give another sampler")
    if not any(re.match(r"sweep\.(metric|goal)=", change) for change in changes):
        return
    if stored.get("search") is not None:
        before = objectives(load_sweep(stored.get("settings") or plain_sweep(Sweep(), NoPruner()))[0])
        check_same_objectives(objectives(sweep), before, folder.path)
    for entry in folder.entries():
        if entry.hash is not None:
            check_metric(sweep, load_config(entry.folder.config))
            return


def _recheck(plan: PlannedSweep, composer: Composer, terminal: Terminal) -> None:
    """Makes trials of the cells that had a mistake and have none any more: a file was put in its place."""
    waiting = [entry.overrides for entry in plan.folder.entries() if entry.hash is None]
    mended = check_cells(waiting, composer.trial, plan.sweep).valid
    plan.folder.drop_invalid([overrides for _, overrides in mended])
    common = shared([entry.overrides for entry in plan.folder.entries()] + [overrides for _, overrides in mended])
    trials = [(tracked(config, plan.folder.path, plan.tracking), overrides, None) for config, overrides in mended]
    shrink_to_fit(plan, trials, [entry for entry, _ in plan.folder.add(trials, common)], terminal)
