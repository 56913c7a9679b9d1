"""The command that submits a sweep's jobs: it may leave at any time, and `resume` comes back to them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from danube_sweep import paths
from danube_sweep.errors import ConfigError, Interrupted, SweepFailed
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions
from danube_sweep.sweeping.cluster.cluster_jobs import ClusterJobs, remembered, submit
from danube_sweep.sweeping.cluster.cluster_options import check_scheduler
from danube_sweep.sweeping.cluster.worker_exits import explains_exit_1
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.signals import StopRequest

ASKED_S: Final = {"slurm": 10.0, "local": 0.3}
"""Seconds between two questions to the scheduler."""
TOLD_S: Final = 60.0

Run = Callable[[SweepFolder, Terminal], None]


def on_cluster(options: ClusterOptions, settings: Sequence[str] = ()) -> Run:
    """The function that runs a planned sweep on a cluster. It returns when the jobs have ended, with any outcome of
    trials.

    Jobs that are still there are followed, and none is added. Raises Interrupted for a stop, which does not reach the
    jobs, and SweepFailed for workers that could not train.
    """

    def run(folder: SweepFolder, terminal: Terminal) -> None:
        with StopRequest(patient=True, silent=True) as stop:  # from before the first job, so that none is left untold
            jobs = _present(folder, settings, terminal)
            if jobs is None:
                jobs = submit(folder, options, settings)
                terminal.note(f"{_named(jobs.ids)} submitted; {options.workers} workers share {_place(folder)}")
            _follow(jobs, folder, terminal, stop)
        _raise_for_workers(jobs, folder, terminal)

    return run


def back_to(sweep: Path, settings: Sequence[str]) -> Run | None:
    """`on_cluster` with the earlier request for a sweep whose jobs were submitted before; None for any other sweep."""
    jobs = remembered(sweep)
    if jobs is None:
        return None
    check_scheduler(jobs.options)
    return on_cluster(jobs.options, settings)


def _present(folder: SweepFolder, settings: Sequence[str], terminal: Terminal) -> ClusterJobs | None:
    jobs = remembered(folder.path)
    if jobs is None:
        return None
    alive = jobs.alive()
    if alive is None:
        raise SweepFailed("the scheduler does not answer whether the sweep's jobs still run; try again later")
    if not alive:
        return None
    if settings:
        raise ConfigError(f"{settings[0]}: {_named(alive)} of this sweep run without it; end them first")
    terminal.note(f"still in the queue: {_named(alive)}; none is added")
    return jobs


def _follow(jobs: ClusterJobs, folder: SweepFolder, terminal: Terminal, stop: StopRequest) -> None:
    told_s, told = time.monotonic(), 0
    while (alive := jobs.alive()) is None or alive:
        if stop.signal_number is not None:
            place, ends = _place(folder), "scancel" if jobs.options.cluster == "slurm" else "kill"
            raise Interrupted(
                f"the jobs go on: danube-sweep watch {place} shows them, resume {place} waits for them; "
                f"{ends} {' '.join(jobs.ids)} ends them",
                stop.signal_number,
            )
        entries = folder.entries()
        ended = sum(entry.folder.result.is_file() for entry in entries)
        if ended > told and time.monotonic() - told_s >= TOLD_S:
            told_s, told = time.monotonic(), ended
            terminal.note(f"{ended} of {len(entries)} trials have ended")
        time.sleep(ASKED_S[jobs.options.cluster])


def _raise_for_workers(jobs: ClusterJobs, folder: SweepFolder, terminal: Terminal) -> None:
    if bad := jobs.unsuccessful(excused=explains_exit_1(folder)):
        for line in bad[1:]:
            terminal.note(line)
        said = bad[0].partition("; go on with: ")[0]
        raise SweepFailed(f"{said}; go on with: danube-sweep resume {_place(folder)}")


def _named(ids: Sequence[str]) -> str:
    return f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs ({ids[0]} … {ids[-1]})"


def _place(folder: SweepFolder) -> str:
    return str(paths.from_here(folder.path))
