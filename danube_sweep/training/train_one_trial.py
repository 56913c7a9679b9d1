"""One trial with its summary, for the command line, and in a child for Python's `train`."""

from pathlib import Path

from danube_sweep import paths
from danube_sweep.config.identity import HASH_VERSION
from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.run_summary import summary
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.probe import probe_once
from danube_sweep.training.ranks import ALONE, Ranks
from danube_sweep.training.signals import StopRequest


def train_one_trial(
    config: Config, folder: Path, stop: StopRequest | None = None, ranks: Ranks = ALONE
) -> float | None:
    """Trains, resumes or reports the trial in `folder`, shows its summary and returns its objective.

    The objective is None for a trial without validation rows. With `ranks` this is the leading one. Raises the errors
    of `run_trial`.
    """
    quiet_libraries()
    from danube_sweep.training.run import run_trial

    begun = as_begun(config, folder)
    with Terminal() as terminal:
        if not RunFolder(folder).result.is_file():
            probe_once(begun.device, terminal.note)
        result = run_trial(begun, folder, terminal, stop=stop, ranks=ranks)
        terminal.table(summary(result), title=str(paths.from_here(folder)))
    return float(result["validation"][begun.objective]) if result["validation"] else None


def as_begun(config: Config, folder: Path) -> Config:
    """The trial, or in a sweep of an older version the one that its folder states: defaults have changed since."""
    stated = RunFolder(folder)
    old = stated.trial.is_file() and stated.config.is_file() and stated.hash_version() < HASH_VERSION
    return load_config(stated.config) if old else config
