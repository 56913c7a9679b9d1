"""What a sweep costs beside its training: CPU of its own process a trial, for trials that end at once, and start-up.

    python benchmarks/instant_trials.py [--trials 24,1000] [--only plan|sweep|claims|start]

"claims" is a sweep with pruner=asha of which half of the trials were validated: the cost of one claim and one verdict.

It counts CPU seconds, not wall time. Another load on the machine raises them too: hold each row against that of --help.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Asha, Sweep
from danube_sweep.results.rank import rank_sweep
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.slots import find_slots
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.next_trial import FolderSource
from danube_sweep.sweeping.start_sweep import plan_grid
from danube_sweep.terminal.screen import Terminal

ROUNDS = 5
SETTLED_S = 2.5
"""After which a folder's time tells of every change."""
SETTINGS = ["device=cpu", "tracking=none", "sweep.baseline=none", "sweep.pack=1", "sweep.stagger_s=0"]
GRID = "-m lora.rank=4,8 optimizer.lr=1e-4,2e-4"
STARTS = {
    "--help": "-m danube_sweep --help",
    "plan": "-m danube_sweep plan device=cpu",
    f"plan {GRID}": f"-m danube_sweep plan {GRID} device=cpu",
    "the imports of a run": "-c import\tdanube_sweep.training.run",
}


def instant(job: Job, _link: Any) -> None:
    """A trial that ends at once."""
    write_json(RunFolder(job.path).result, {"state": "finished", "validation": {"log_loss": 1.0}})


@contextmanager
def counted(found: dict[str, float], name: str, who: int = resource.RUSAGE_SELF) -> Iterator[None]:
    """Adds the CPU seconds of the block."""
    before = sum(resource.getrusage(who)[:2])
    yield
    found[name] = sum(resource.getrusage(who)[:2]) - before


def sweep(folder: Path, count: int, task: Callable[[Job, Any], None] | None) -> dict[str, float]:
    """CPU seconds of this process for a sweep of so many trials, by part; without a task, for its plan alone."""
    found: dict[str, float] = {}
    terminal = Terminal(Console(quiet=True), plain=True)
    cells = [[*SETTINGS, f"seed={seed}"] for seed in range(count)]
    with counted(found, "plan"):
        planned = plan_grid(folder, cells, Composer(), terminal)
    assert planned is not None
    if task is None:
        return found
    plan = planned[0]
    source, slots = FolderSource(plan.folder.watched()), find_slots(plan.sweep, {"cpu"})
    with counted(found, "claim, start, end"):
        Executor(source, plan.sweep, slots, terminal, lambda: False, task).run()
    with counted(found, "rank"):
        rank_sweep(folder)
    return found


def claims(folder: Path, count: int) -> dict[str, float]:
    """CPU seconds of `ROUNDS` claims and verdicts, by part: half of the trials have been validated, and most paused."""
    found: dict[str, float] = {}
    sweep, config = SweepFolder(folder), Composer().trial(SETTINGS)
    with sweep.locked():
        sweep.write({})
        added = sweep.add([(replace(config, seed=seed), [f"seed={seed}"], None) for seed in range(count)])
    chance = Random(1)
    for entry, _ in added[: count // 2]:
        values = [3 - chance.random() for _ in range(chance.choice([2, 2, 2, 4, 6, 8]))]
        rows = [f"{number * 20 // 8},validation,{value}" for number, value in enumerate(values, start=1)]
        write_json(entry.folder.environment, {"total_steps": 20})
        entry.folder.metrics.write_text("\n".join(["step,part,log_loss", *rows, ""]))
        ended = len(values) == 8 or chance.random() < 0.3
        write_json(entry.folder.result if ended else entry.folder.paused, {"state": "pruned"})
    time.sleep(SETTLED_S)
    watched = sweep.watched()
    early = EarlyStopping(watched, Asha(), Sweep())
    source = FolderSource(watched, early=early)
    for name in ("first round", "claim"):
        with counted(found, name):
            for _ in range(ROUNDS):
                claim = source.claim()
                assert claim is not None
                claim.release()
    with counted(found, "verdict"):
        for entry, _ in added[:ROUNDS]:
            early.verdict(entry, 1)
    del found["first round"]
    return found


def show_starts() -> None:
    """Prints the CPU seconds of each command."""
    for name, words in STARTS.items():
        found: dict[str, float] = {}
        command = [sys.executable, *(word.replace("\t", " ") for word in words.split(" "))]
        with counted(found, name, resource.RUSAGE_CHILDREN):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"{name:<48} {found[name]:6.2f} CPU s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    import instant_trials  # what a child can find again

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="24,1000")
    parser.add_argument("--only", choices=["plan", "sweep", "claims", "start"])
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    counts = [*map(int, options.trials.split(","))]
    for count in counts if options.only in (None, "claims") else []:
        with tempfile.TemporaryDirectory() as place:
            for name, seconds in claims(Path(place) / "sweep", count).items():
                print(f"{count} trials: {name:<34} {1000 * seconds / ROUNDS:8.1f} CPU ms", flush=True)
    task = None if options.only == "plan" else instant_trials.instant
    for count in counts if options.only in (None, "plan", "sweep") else []:
        with tempfile.TemporaryDirectory() as place:
            for name, seconds in sweep(Path(place) / "sweep", count, task).items():
                print(f"{count} trials: {name:<34} {1000 * seconds / count:8.1f} CPU ms a trial", flush=True)
    if options.only in (None, "start"):
        show_starts()


if __name__ == "__main__":
    main()
