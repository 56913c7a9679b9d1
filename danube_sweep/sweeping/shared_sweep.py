"""Before a sweep's first lock: how its workers hold trials; while it runs: that each of them is seen by the others."""

from collections.abc import Iterator
from contextlib import contextmanager

from danube_sweep.config.schema import Lock, Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.storage.locks import TERMS, Terms, set_terms, terms_of
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.storage.worker_locks import worker_present
from danube_sweep.terminal.screen import Terminal


def settle_locks(folder: SweepFolder, sweep: Sweep) -> None:
    """Writes how the sweep's trials are held, for all its processes; nothing for a sweep that is not shared.

    Raises ConfigError for sweep.lock=flock where others hold leases, CheckpointError for a folder of somebody else's,
    DiskError.
    """
    present = terms_of(folder.path)
    if sweep.lock is Lock.flock:
        if present is not None:
            raise ConfigError(
                f"sweep.lock=flock: the workers of {folder.path} hold leases; leave it out, or end them all and "
                f"delete {TERMS}"
            )
        return
    only = sweep.lock is Lock.lease or (present is not None and present.only)
    wanted = Terms(only, sweep.lease_s)
    if wanted != present and (only or sweep.workers > 1):
        take_over(folder.path, Kind.sweep)
        set_terms(folder.path, wanted)


@contextmanager
def as_worker(folder: SweepFolder, sweep: Sweep, terminal: Terminal) -> Iterator[None]:
    """While it lasts, other workers see this one. Says how trials are held where the machines do not share locks.

    Raises ConfigError if a live worker would train the same trials.
    """
    terms = terms_of(folder.path)
    if terms is not None and terms.only:
        terminal.note(
            f"sweep.lock=lease: trials of a worker that dies come free after sweep.lease_s={terms.lease_s:g} s"
        )
    if sweep.workers == 1 or (terms is not None and terms.only):
        yield
        return
    with worker_present(folder.path, leases=terms is not None) as unseen:
        if unseen is not None:
            terminal.note(
                f"this machine does not see the locks of the worker on {unseen}, so trials are held by leases: those "
                f"of a worker that dies come free after sweep.lease_s={sweep.lease_s:g} s"
            )
        yield
