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


def main() -> None:
    file = KEPT / "hashes.json"
    pinned = json.loads(file.read_text())
    os.chdir(KEPT / "files")
    pinned[str(HASH_VERSION)] = [[overrides, trial_hash(compose(overrides))] for overrides, _ in pinned["1"]]
    lines = [f'"{version}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for version, rows in pinned.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
