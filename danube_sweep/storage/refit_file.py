"""refit.json: the source of a refit's settings, and their scores before they were trained on all rows."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import read_json, write_json

NAME = "refit.json"
FORMAT = 1


def write_refit(folder: Path, source: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the file; `source` is stored relative to the folder. Raises DiskError."""
    place = os.path.relpath(source.resolve(), folder.resolve())
    write_json(folder / NAME, {"format": FORMAT, "source": place, "rows": list(rows)})


def read_refit(folder: Path) -> list[dict[str, Any]]:
    """The settings of a refit and their earlier scores. Empty for a folder that is no refit, and for a damaged file."""
    if not (folder / NAME).is_file():
        return []
    try:
        rows = read_json(folder / NAME)["rows"]
        return [{**one, "promised": str(one["promised"])} for one in rows]
    except (CheckpointError, KeyError, TypeError):
        return []
