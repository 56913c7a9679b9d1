"""Kills, damage and hostile input against runs, sweeps and every reader, on this machine: is anything lost?

Prints a line for each attack with what it found; docs/reliability.md has the figures. Exits with 1 if anything was.

    python benchmarks/siege [--scale 1] [--only kills,files] [--scenes run,predict] [--list]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so commands are forked from one that has imported the stack: tests/warm.py

import endurance
import faults
import fuzz
import kills
import signals
import surroundings
import words
from scenes import SCENES

ROOT = Path(__file__).parents[2]
Attack = Callable[[float, Path], int]
"""Attacks with a scale in an empty folder, prints its lines and returns how much it found."""


def payloads(_scale: float, place: Path) -> int:
    """Every payload once, at any scale."""
    return subprocess.run([sys.executable, ROOT / "tests" / "payloads.py"], cwd=place, check=False).returncode


ATTACKS: dict[str, tuple[Attack, str]] = {
    "kills": (kills.siege, "kill -9 at random moments, over sweeps and packs, by 1, 2 and 4 processes"),
    "files": (fuzz.siege, "damaged files for every reader"),
    "words": (words.siege, "override strings"),
    "faults": (faults.siege, "the first and the last system call of each kind on each file fail, one in each command"),
    "signals": (signals.siege, "signals at random moments"),
    "surroundings": (surroundings.siege, "no home, few open files, a clock that jumps, a full disk"),
    "payloads": (payloads, "hostile models, folders and data"),
    "endurance": (endurance.siege, "many trials in one process and in packs"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything; 1 takes an hour on two cores")
    parser.add_argument("--only", default=",".join(ATTACKS), help="some of the attacks")
    parser.add_argument("--scenes", default=",".join(SCENES), help="some of the commands of faults and signals")
    parser.add_argument("--list", action="store_true", help="name the attacks and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:8}{about}" for name, (_, about) in ATTACKS.items()))
        return 0
    if unknown := sorted(set(options.only.split(",")) - ATTACKS.keys()):
        parser.error(f"--only {unknown[0]}: no such attack; there are {', '.join(ATTACKS)}")
    if strange := sorted(set(options.scenes.split(",")) - SCENES.keys()):
        parser.error(f"--scenes {strange[0]}: no such command; there are {', '.join(SCENES)}")
    for name in SCENES.keys() - set(options.scenes.split(",")):
        del SCENES[name]
    place = Path(tempfile.mkdtemp(prefix="siege-"))
    os.environ["DANUBE_SWEEP_CACHE"] = str(place / "cache")
    print(f"in {place}", flush=True)
    found = {}
    for name in options.only.split(","):
        print(f"\n{name}: {ATTACKS[name][1]}", flush=True)
        (place / name).mkdir()
        found[name] = ATTACKS[name][0](options.scale, place / name)
    print(f"\nfound: {', '.join(f'{name} {count}' for name, count in found.items())}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
