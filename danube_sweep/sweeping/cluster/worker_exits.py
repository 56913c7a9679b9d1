"""Why a worker's exit code is 1."""

from collections.abc import Sequence

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.storage.sweep_folder import Entry, SweepFolder


def explains_exit_1(sweep: SweepFolder) -> bool:
    """Whether trials account for a worker's exit code 1, and no worker has broken.

    No trial is open, and one has ended badly; or all that was asked for is there, and a worker left it to others.
    """
    entries = sweep.entries()
    states = [entry.folder.result_fields().get("state") for entry in entries]
    if not entries or None in states:
        return False
    return any(state not in COMPLETE for state in states) or _is_all(sweep, entries)


def _is_all(sweep: SweepFolder, entries: Sequence[Entry]) -> bool:
    described = sweep.read() if sweep.file.is_file() else {}
    wanted = described.get("settings", {}).get("sweep", {}).get("trials")
    drawn = sum(not entry.confirms for entry in entries)
    return not described.get("search") or (isinstance(wanted, int) and drawn >= wanted)
