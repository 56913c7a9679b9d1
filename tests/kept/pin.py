"""Writes the hashes of today's version into hashes.json anew: `python tests/kept/pin.py`, from the checkout's top.

The trials are those of version 1, whose hashes stay. To be run after a change that is meant to change hashes, before
the version is released; after that the version goes up instead.
"""

import json
import os
from pathlib import Path

from danube_sweep.composer import compose
from danube_sweep.config.identity import HASH_VERSION, trial_hash

KEPT = Path(__file__).resolve().parent
COMMIT = "0123456789abcdef" * 2 + "01234567"


def main() -> None:
    file = KEPT / "hashes.json"
    pinned = json.loads(file.read_text())
    os.chdir(KEPT / "files")
    trials = [_of_today(overrides) for overrides, _ in pinned["1"]]
    pinned[str(HASH_VERSION)] = [[overrides, trial_hash(compose(overrides))] for overrides in trials]
    lines = [f'"{version}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for version, rows in pinned.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _of_today(overrides: list[str]) -> list[str]:
    """The same with real weights for a folder, and a commit for a model of the hub."""
    hub = any(one.startswith("model=") for one in overrides)
    own = ["model.path=whole" if one == "model.path=model" else one for one in overrides]
    return [*own, f"model.revision={COMMIT}"] if hub else own


if __name__ == "__main__":
    main()
