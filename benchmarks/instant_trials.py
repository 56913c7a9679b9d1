"""What a sweep costs beside its training: CPU of its own process a trial, for trials that end at once, and start-up.

    python benchmarks/instant_trials.py [--trials 24,1000] [--only sweep|start] [--pruner asha]

It counts CPU seconds, not wall time. Another load on the machine raises them too: hold each row against that of --help.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from danube_sweep.composer import Composer
from danube_sweep.config.schema import NoPruner
from danube_sweep.results.rank import rank_sweep
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.slots import find_slots
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.next_trial import FolderSource
from danube_sweep.sweeping.start_sweep import plan_grid
from danube_sweep.terminal.screen import Terminal

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


def sweep(folder: Path, count: int, task: Callable[[Job, Any], None], pruner: str = "none") -> dict[str, float]:
    """CPU seconds of this process for a sweep of so many trials, by part."""
    found: dict[str, float] = {}
    terminal = Terminal(Console(quiet=True), plain=True)
    cells = [[*SETTINGS, f"pruner={pruner}", f"seed={seed}"] for seed in range(count)]
    with counted(found, "plan"):
        planned = plan_grid(folder, cells, Composer(), terminal)
    assert planned is not None
    plan = planned[0]
    watched, slots = plan.folder.watched(), find_slots(plan.sweep, {"cpu"})
    early = None if isinstance(plan.pruner, NoPruner) else EarlyStopping(watched, plan.pruner, plan.sweep)
    source = FolderSource(watched, early=early)
    with counted(found, "claim, start, end"):
        Executor(source, plan.sweep, slots, terminal, lambda: False, task).run()
    with counted(found, "rank"):
        rank_sweep(folder)
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
    parser.add_argument("--only", choices=["sweep", "start"])
    parser.add_argument("--pruner", default="none", help="looked at for each claim; no trial is validated")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    for count in [] if options.only == "start" else map(int, options.trials.split(",")):
        with tempfile.TemporaryDirectory() as place:
            for name, seconds in sweep(Path(place) / "sweep", count, instant_trials.instant, options.pruner).items():
                print(f"{count} trials: {name:<34} {1000 * seconds / count:8.1f} CPU ms a trial", flush=True)
    if options.only != "sweep":
        show_starts()


if __name__ == "__main__":
    main()
