"""Many trials in one process, and a long sweep: what grows with each of them?"""

import gc
import os
import resource
from pathlib import Path

from hour import HOUR
from kills import TRIAL, plan
from rich.console import Console
from scenes import warm

from danube_sweep.composer import Composer
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_trial

MOST_BYTES_A_TRIAL = 1 << 20
SHORT = ["trainer.max_steps=2", "trainer.validate_every=2"]


def siege(scale: float, place: Path) -> int:
    """50 trials in this process, and a sweep of 200 trials in packs of eight, at scale 1."""
    found = in_one_process(max(12, round(50 * scale)), place / "process")
    return found + (in_packs(max(8, round(200 * scale)), place / "sweep") if HOUR.begins("trials in packs") else 0)


def in_one_process(count: int, place: Path) -> int:
    """Counts as found: memory that grows by over a MiB a trial, open files and temporary files that stay."""
    quiet_libraries()
    composer, terminal, sizes, handles = Composer(), Terminal(Console(quiet=True)), [], []
    for number in range(count):
        run_trial(composer.trial([*TRIAL, *SHORT, f"seed={number}"]), place / str(number), terminal)
        gc.collect()
        sizes.append(_resident_bytes())
        handles.append(len(os.listdir("/proc/self/fd")))
    settled = count // 4
    grown = (sizes[-1] - sizes[settled]) / (count - 1 - settled)
    opened, left = handles[-1] - handles[settled], _temporary(place)
    print(f"{count} trials in one process: {grown / 1024:.0f} KiB a trial, {opened} more open files, {left} left over")
    return int(grown > MOST_BYTES_A_TRIAL) + (opened > 0) + (left > 0)


def in_packs(count: int, place: Path) -> int:
    """Counts as found: trials that are not finished, and temporary files that stay."""
    plan(place, count, ["sweep.pack=8"])
    ran = warm.run("-m", "danube_sweep", "resume", str(place), cwd=place.parent)
    states = [(entry.folder.read_result() or {}).get("state") for entry in SweepFolder(place).entries()]
    unfinished, left = sum(state != "finished" for state in states), _temporary(place)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{count} trials in packs: exit code {ran.returncode}, {unfinished} unfinished, {left} left over, "
        f"peak {peak:.0f} MiB"
    )
    return int(unfinished > 0) + (left > 0) + (ran.returncode != 0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _temporary(place: Path) -> int:
    return sum(1 for _ in place.rglob("*.tmp"))
