"""decisions.json: how a run or an ensemble turns its answers into labels, and the score of that on unseen rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.files import content_hash, read_json, write_json
from danube_sweep.storage.run_folder import RunFolder

NAME = "decisions.json"
FORMAT = 1


def write_decisions(folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the file, tied to the run or ensemble as it is now. Raises DiskError."""
    write_json(folder / NAME, {"format": FORMAT, "of": _identity(folder), **described})


def read_decisions(folder: Path) -> dict[str, Any] | None:
    """The content of the file; None without one. Raises CheckpointError for one that is damaged or of another model."""
    file = folder / NAME
    if not file.is_file():
        return None
    found = read_json(file)
    if found.get("format") != FORMAT:
        raise CheckpointError(f"{file} is of another version ({found.get('format')!r}); make it again")
    if found.get("of") != _identity(folder):
        raise CheckpointError(
            f"{file} belongs to an earlier model in {folder}; make it again with danube-sweep decide {folder}"
        )
    return found


def _identity(folder: Path) -> str:
    """The hash of a run's trial, or of the members and weights of an ensemble."""
    ensemble = EnsembleFolder(folder)
    if ensemble.file.is_file():
        return content_hash(ensemble.file)
    return str(RunFolder(folder).result_fields().get("trial", ""))
