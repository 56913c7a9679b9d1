"""Folders that were not made here: commands list the paths that lead outside, and `--trust` lets them be used."""

import argparse
import sys
from pathlib import Path

from danube_sweep.config.neutral_text import neutral


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option `--trust`."""
    parser.add_argument(
        "--trust", action="store_true", help="let a folder from elsewhere use paths outside itself (docs/security.md)"
    )


def check_received(folder: Path, *, trust: bool) -> None:
    """Prints the paths outside itself that a trusted folder reads. Raises CheckpointError if it is not trusted."""
    from danube_sweep.storage import received

    _say(received.check(folder, trust=trust))


def say_links(folder: Path) -> None:
    """Prints which links of a folder that was not made here lead outside it."""
    from danube_sweep.storage import received

    _say(received.note_on_links(folder))


def _say(lines: list[str]) -> None:
    for line in lines:
        print(f"danube-sweep: note: {neutral(line)}", file=sys.stderr)
