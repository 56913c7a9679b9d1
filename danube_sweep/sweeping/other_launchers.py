"""Trials that launchers of others train, such as joblib's, submitit's or Ray's: batches of jobs, and no slots."""

from collections.abc import Callable, Sequence

from danube_sweep.config.schema import Confirm, NoPruner, Pruner, Sweep
from danube_sweep.config.validate import AUTO
from danube_sweep.storage.sweep_folder import Entry
from danube_sweep.sweeping.propose.next_trial import FolderSource, state_of
from danube_sweep.sweeping.propose.search import SearchSource
from danube_sweep.terminal.screen import Terminal

Launch = Callable[[Sequence[Entry]], None]
"""Trains the given trials in their folders, by other means than our slots."""


def run_batches(slots: int | None, source: FolderSource | SearchSource, launch: Launch, terminal: Terminal) -> None:
    """Has every trial of `source` trained, in batches of `slots` if it draws them."""
    # Other launchers take a batch and come back when all of it has ended: no slots, no pruning, no early word.
    while batch := source.batch(slots or 1):
        launch([entry for entry in batch if state_of(entry) is None])
        for entry in batch:
            source.heard(entry)
        while source.notes:
            terminal.note(source.notes.pop(0))


def say_ignored(sweep: Sweep, pruner: Pruner, terminal: Terminal) -> None:
    """Names the settings that only our own launchers keep to."""
    default = Sweep()
    names = ("stagger_s", "deadline_h", "timeout_h", "stall_s", "grace_s", "disk_wait_s", "on_oom")
    ignored = [f"sweep.{name}" for name in names if getattr(sweep, name) != getattr(default, name)]
    ignored += [] if sweep.confirm is Confirm.none else ["sweep.confirm"]
    ignored += [] if isinstance(pruner, NoPruner) else ["pruner"]
    ignored += [] if sweep.pack in (AUTO, 1) else ["sweep.pack"]  # other launchers train one at a time
    ignored += [] if sweep.draws_ahead == AUTO else ["sweep.draws_ahead"]  # a batch is drawn at once
    if ignored:
        terminal.note(
            f"{', '.join(ignored)}: only hydra/launcher=local, slurm and ray_actors keep to it; this launcher does not"
        )
