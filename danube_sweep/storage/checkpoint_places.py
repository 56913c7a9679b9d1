"""The place of a run's checkpoints: its own folder, or another folder below storage.checkpoints."""

import secrets
from contextlib import suppress
from pathlib import Path

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.checkpoints_by_step import Checkpoints
from danube_sweep.storage.files import write_json
from danube_sweep.storage.ownership import Kind, is_ours, take_over
from danube_sweep.storage.run_folder import PLACE, RunFolder


def place_checkpoints(folder: RunFolder, wanted: str | None) -> str | None:
    """Settles where the run's checkpoints go, once for all. Returns a note if that is not the wanted place, else None.

    Raises CheckpointError for a place that lost its marker, DiskError for one that cannot be made.
    """
    if folder.elsewhere.is_file():
        there = folder.checkpoints
        if not is_ours(there, Kind.checkpoints):
            raise CheckpointError(
                f"{folder.elsewhere} names {there}, which is no folder of checkpoints; mount its disk, or delete "
                f"{folder.elsewhere.name} to train the trial from its start"
            )
        kept_there = wanted is None or there.parent == Path(wanted)
        return None if kept_there else f"storage.checkpoints={wanted}: this run's checkpoints stay in {there}"
    if wanted is None:
        return None
    if Checkpoints(folder.checkpoints).steps():
        return f"storage.checkpoints={wanted}: this run's checkpoints stay in {folder.checkpoints}"
    there = Path(wanted) / f"{folder.path.absolute().name}-{secrets.token_hex(3)}"
    take_over(there, Kind.checkpoints)
    write_json(folder.elsewhere, {PLACE: str(there)})
    return None


def remove_checkpoints(folder: RunFolder) -> None:
    """Removes every checkpoint of the run, and their folder unless something else is in it."""
    Checkpoints(folder.checkpoints).clear()
    with suppress(OSError):
        folder.elsewhere.unlink(missing_ok=True)
