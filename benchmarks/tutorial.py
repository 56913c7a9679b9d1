"""Runs docs/tutorial.md from its first command to its last, and prints what each prints, with its CPU seconds.

    python benchmarks/tutorial.py --model FOLDER --data FOLDER [--out FOLDER] [--rows 120] [--first N] [OVERRIDES…]

`--model` is a folder of SmolLM2-135M (benchmarks/smollm2_folder.py), `--data` has banking77_train.csv and
banking77_test.csv. OVERRIDES go to the commands that train.
"""

import argparse
import csv
import ctypes
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
INTENTS = ("card_arrival", "exchange_rate", "lost_or_stolen_card", "top_up_failed")
TRAINS = ("-m", "plan")
SUBREAPER = 36


def commands() -> list[list[str]]:
    """The words of each danube-sweep command of the page."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("danube-sweep ")]


def cut(source: Path, target: Path, rows: int, *, labels: bool) -> None:
    """The first rows of the four intents, each as often."""
    with source.open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    chosen = [row for name in INTENTS for row in [one for one in found if one["label"] == name][: rows // len(INTENTS)]]
    names = ["id", "text", *(["label"] if labels else [])]
    with target.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([names, *([row[name] for name in names] for row in chosen)])


def run(words: list[str], place: Path) -> tuple[str, float, float]:
    """What a command printed, its CPU seconds with those of all its processes, and its seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "danube_sweep", *words]
    done = subprocess.run(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with suppress(ChildProcessError):  # the parent of the trials is left to us
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        sys.exit(f"{shlex.join(words)} failed:\n{done.stdout}")
    return done.stdout, cpu_s, time.monotonic() - began


def main() -> None:
    """Cuts the data, links the model, runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder of SmolLM2-135M")
    parser.add_argument("--data", type=Path, required=True, help="the folder with banking77's two files")
    parser.add_argument("--out", type=Path, help="the folder to work in, new or empty (default: a temporary one)")
    parser.add_argument("--rows", type=int, default=120, help="training rows (default 120)")
    parser.add_argument("--first", type=int, metavar="N", help="run the first N commands only")
    parser.add_argument("overrides", nargs="*", help="for the commands that train")
    options = parser.parse_intermixed_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as temporary:
        place: Path = options.out or Path(temporary)
        place.mkdir(exist_ok=True)
        (place / "smollm2").symlink_to(options.model.resolve())
        cut(options.data / "banking77_train.csv", place / "train.csv", options.rows, labels=True)
        cut(options.data / "banking77_test.csv", place / "test.csv", options.rows // 3, labels=False)
        done, total_s = 0, 0.0
        for words in commands()[: options.first]:
            own = options.overrides if words[0] in TRAINS or "=" in words[0] else []
            said, cpu_s, seconds = run([*words, *own], place)
            done, total_s = done + 1, total_s + cpu_s
            print(
                f"\n$ danube-sweep {shlex.join(words)}\n{said.rstrip()}\n# {cpu_s:.0f} CPU-s, {seconds:.0f} s",
                flush=True,
            )
        print(f"\n{done} commands, {total_s:.0f} CPU-s")


if __name__ == "__main__":
    main()
