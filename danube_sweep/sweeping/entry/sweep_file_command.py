"""`danube-sweep sweep FILE`: a W&B sweep file, run here."""

from contextlib import ExitStack
from pathlib import Path

from danube_sweep.composer import Composer
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.entry.result_folders import SWEEP_DIR, fresh_sweep_dir
from danube_sweep.sweeping.propose.search_space import Search
from danube_sweep.sweeping.start_sweep import PlannedSweep, plan_grid, run_search, run_sweep
from danube_sweep.sweeping.wandb_file.read_sweep_file import read_sweep_file
from danube_sweep.terminal.screen import Terminal


def run_sweep_file(file: Path, overrides: list[str], terminal: Terminal) -> None:
    """Runs the file's sweep; `overrides` are of every trial, or settings of the sweep, and win over the file.

    Ends like `run_sweep`. Raises ConfigError for a file that cannot be kept to in every point.
    """
    read, composer = read_sweep_file(file), Composer()
    places = [one for one in overrides if one.lstrip("+").startswith(SWEEP_DIR)]
    given = [one.partition("=")[2] for one in places]
    own = [one for one in overrides if one not in places]
    # Another pruner has other fields than the file's early_terminate.
    pruned = any(one.startswith("pruner=") for one in own)
    settings = [*(one for one in read.settings if not (pruned and one.startswith(("pruner=", "pruner.")))), *own]
    # The file's W&B project means nothing to who turns W&B off.
    untracked = [one for one in own if one.startswith("tracking=")][-1:] not in ([], ["tracking=wandb"])
    fixed = [one for one in read.fixed if not (untracked and one.startswith("tracking."))]
    sweep, pruner = composer.sweep([*fixed, *settings])
    tracking = {"mode": "offline", **({} if read.name is None else {"group": read.name})}
    with ExitStack() as stack:
        fresh = Path(given[-1]) if given else stack.enter_context(fresh_sweep_dir(exists=not sweep.dry_run))
        if read.method == "grid":
            cells = [[*fixed, *cell, *settings] for cell in read.cells(sweep.max_trials)]
            planned = plan_grid(fresh, cells, composer, terminal, tracking=tracking)
            if planned is not None:
                run_sweep(planned[0], terminal)
        else:
            search = Search([*fixed, *settings], read.space)
            plan = PlannedSweep(SweepFolder(fresh.absolute()), sweep, pruner, search, tracking=tracking)
            run_search(plan, composer, terminal)
