"""soup.json: the trials whose average a run's folder holds, and the scores of the average."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danube_sweep.errors import ConfigError
from danube_sweep.storage.files import write_json

NAME = "soup.json"
FORMAT = 1


def write_soup_file(folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the file. Raises DiskError."""
    write_json(folder / NAME, {"format": FORMAT, **described})


def is_soup(folder: Path) -> bool:
    """Whether the folder of a run holds an average of trials."""
    return (folder / NAME).is_file()


def is_unfinished_soup(folder: Path) -> bool:
    """Whether a soup was being written there when its process died: result.json comes last."""
    return is_soup(folder) and not (folder / "result.json").is_file()


def refuse_soup(folder: Path, way_out: str) -> None:
    """Raises ConfigError for the folder of a soup, where a run must have been trained as its config says."""
    if is_soup(folder):
        raise ConfigError(f"{folder} is a soup, whose config was never trained; {way_out}")
