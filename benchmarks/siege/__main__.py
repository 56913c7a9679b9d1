"""Kills, damage and hostile input against runs, sweeps and every reader, on this machine: is anything lost?

Prints a line for each attack with what it found; docs/reliability.md has the figures. Exits with 1 if anything was.

    python benchmarks/siege [--scale 1] [--minutes 60] [--seed N] [--only kills,files] [--scenes run,predict] [--list]

Each attack has a share of the minutes. When it is over, no new part of it begins, and what was left out is printed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so commands are forked from one that has imported the stack: tests/warm.py

import endurance
import faults
import fuzz
import kills
import saves
import signals
import surroundings
import words
from hour import HOUR
from scenes import SCENES

ROOT = Path(__file__).parents[2]
Attack = Callable[[float, Path], int]
"""Attacks with a scale in an empty folder, prints its lines and returns how much it found."""


def payloads(_scale: float, place: Path) -> int:
    """Every payload once, at any scale."""
    return subprocess.run([sys.executable, ROOT / "tests" / "payloads.py"], cwd=place, check=False).returncode


ATTACKS: dict[str, tuple[Attack, float, str]] = {
    "kills": (kills.siege, 15, "kill -9 at random moments, over sweeps and packs, by 1, 2 and 4 processes"),
    "saves": (saves.siege, 6, "kill -9 between the write of a file and its rename"),
    "files": (fuzz.siege, 8, "damaged files for every reader"),
    "words": (words.siege, 4, "override strings"),
    "faults": (
        faults.siege,
        14,
        "the first or the last system call of a kind on a file fails, one in each command; of those of a run, a packed "
        "sweep, a search and predict as many as there is time for, and a share of those of other commands",
    ),
    "signals": (signals.siege, 5, "signals at random moments"),
    "surroundings": (surroundings.siege, 4, "no home, few open files, a clock that jumps, a full disk"),
    "payloads": (payloads, 2, "hostile models, folders and data"),
    "endurance": (endurance.siege, 2, "many trials in one process and in packs"),
}
"""Each with its minutes of an hour, and what it does."""


def play(names: list[str], scale: float, place: Path) -> dict[str, int]:
    """Plays attacks one after the other, each in its share of the time; returns how much each has found."""
    found = {}
    for turn, name in enumerate(names):
        attack, minutes, about = ATTACKS[name]
        print(f"\n{name}: {about}", flush=True)
        (place / name).mkdir()
        began_s = time.monotonic()
        with HOUR.part(minutes / sum(ATTACKS[one][1] for one in names[turn:])):
            if HOUR.begins(name):
                found[name] = attack(scale, place / name)
        print(f"{name}: {(time.monotonic() - began_s) / 60:.1f} minutes", flush=True)
    return found


def hear() -> None:
    """Lets no command inherit that signals are ignored: a shell starts background jobs so, and nohup does."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything; 1 is for an hour")
    parser.add_argument("--minutes", type=float, help="no new part begins after these; 60 times the scale if not given")
    parser.add_argument("--seed", type=int, help="draws the same saves and faults as the campaign that printed it")
    parser.add_argument("--only", default=",".join(ATTACKS), help="some of the attacks")
    parser.add_argument("--scenes", default=",".join(SCENES), help="some of the commands of saves, faults and signals")
    parser.add_argument("--list", action="store_true", help="name the attacks and stop")
    options = parser.parse_args()
    hear()
    if options.list:
        print("\n".join(f"{name:8}{about}" for name, (*_, about) in ATTACKS.items()))
        return 0
    if unknown := sorted(set(options.only.split(",")) - ATTACKS.keys()):
        parser.error(f"--only {unknown[0]}: no such attack; there are {', '.join(ATTACKS)}")
    if strange := sorted(set(options.scenes.split(",")) - SCENES.keys()):
        parser.error(f"--scenes {strange[0]}: no such command; there are {', '.join(SCENES)}")
    for name in SCENES.keys() - set(options.scenes.split(",")):
        del SCENES[name]
    place = Path(tempfile.mkdtemp(prefix="siege-"))
    os.environ["DANUBE_SWEEP_CACHE"] = str(place / "cache")
    HOUR.seed = int(time.time()) if options.seed is None else options.seed
    minutes = 60 * options.scale if options.minutes is None else options.minutes
    HOUR.end_s = time.monotonic() + 60 * minutes
    print(f"in {place}, seed {HOUR.seed}, for {minutes:g} minutes", flush=True)
    found = play(options.only.split(","), options.scale, place)
    print(f"\nfound: {', '.join(f'{name} {count}' for name, count in found.items())}")
    if HOUR.left_out:
        print(f"left out, as the time was over: {', '.join(HOUR.left_out)}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
