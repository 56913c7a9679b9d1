"""One trial of its own: in this process, or on several devices by processes of the warm parent."""

import os
from collections.abc import Sequence
from pathlib import Path

from danube_sweep.config.options import SWEEP_OPTIONS
from danube_sweep.config.schema import Config
from danube_sweep.sweeping.execute.chosen_count import ranks_of
from danube_sweep.sweeping.execute.messages import Job

SLOTS = "sweep.slots"
"""Of which a single run takes a share of the memory."""


def without_effect(overrides: Sequence[str]) -> str | None:
    """A line on the overrides that set a sweep or its pruner, which a single run has not; None without any."""
    keys = {one: one.lstrip("+").partition("=")[0] for one in overrides}
    words = [one for one, key in keys.items() if key.partition(".")[0] in SWEEP_OPTIONS and key != SLOTS]
    return f"{', '.join(words)}: without effect on a single run; they are for a sweep (-m)" if words else None


def train_run(config: Config, folder: Path) -> float | None:
    """Trains, resumes or reports the trial in `folder`, shows its summary and returns its objective.

    Raises the errors of `train_one_trial`, ConfigError for more devices than there are, and TrialFailed if one of the
    trial's processes has died.
    """
    ranks = ranks_of(config)
    if not ranks:
        from danube_sweep.training.train_one_trial import train_one_trial

        return train_one_trial(config, folder)
    from danube_sweep.sweeping.execute.own_tasks import run_task
    from danube_sweep.sweeping.execute.shown_child import run_in_child

    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(folder, Path.cwd(), dict(os.environ), config, ranks=ranks)
    objective: float | None = run_in_child(run_task, job, on_cpu=config.device.accelerator == "cpu")
    return objective
