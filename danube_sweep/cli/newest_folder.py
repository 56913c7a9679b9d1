"""The newest sweep or run here, for commands that are given no folder."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from danube_sweep.config.neutral_text import neutral
from danube_sweep.errors import ConfigError
from danube_sweep.storage.folder_names import RUNS, SWEEPS
from danube_sweep.storage.ownership import MARKER, Kind, is_ours

_PLACES = ("*", f"{SWEEPS}/*/*", f"{RUNS}/*/*")


def add_directory(parser: argparse.ArgumentParser, what: str) -> None:
    """The argument for a folder that may be left out."""
    parser.add_argument("directory", type=Path, nargs="?", help=f"{what} (default: the newest one here)")


def or_newest(given: Path | None, kinds: Sequence[Kind], command: str) -> Path:
    """The folder that is given, or the newest of these kinds, after printing which. Raises ConfigError for none.

    It looks in the working directory, in multirun and in outputs. The newest is the one that was begun last.
    """
    if given is not None:
        return given
    begun: list[tuple[int, str]] = []
    for place in _PLACES:
        for folder in Path().glob(place):
            with suppress(OSError):  # a folder that is removed meanwhile
                if (folder / MARKER).is_file() and any(is_ours(folder, kind) for kind in kinds):
                    begun.append(((folder / MARKER).stat().st_mtime_ns, str(folder)))
    named = " or ".join(kind.value for kind in kinds)
    if not begun:
        raise ConfigError(
            f"no folder is given, and there is no {named} in {Path.cwd()}, {SWEEPS} or {RUNS}; "
            f"give one: danube-sweep {command} DIR"
        )
    newest = max(begun)[1]
    print(f"danube-sweep: note: no folder is given; the newest {named} is {neutral(newest)}", file=sys.stderr)
    return Path(newest)
