"""What a trial costs besides its training when more workers share a sweep: CPU seconds of all workers per trial,
against those of the first row. The trials sleep and write a result, each in a process of its own.

    python benchmarks/scale.py [--workers 1,2,4,8] [--trials 160] [--seconds 0.2] [--locks flock,lease]

Several numbers of trials show whether the cost grows with the sweep: `--workers 8 --trials 200,1000 --seconds 0`.

CPU seconds of the workers, of the processes that trials are forked from and of the trials are counted. The same workers
over one trial each are subtracted, for their start. The parents of the trials have imported nothing of torch, so that a
fork costs little; benchmarks/sweep_overhead.py has whole trials.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Sweep
from danube_sweep.storage.files import write_json
from danube_sweep.storage.locks import Terms, set_terms
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.execute import process_pool
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.slots import Slots
from danube_sweep.sweeping.propose.next_trial import FolderSource
from danube_sweep.terminal.screen import Terminal

TINY = ["model.shape.hidden_size=64", "model.shape.vocab_size=512", "data.rows=60", "device=cpu", "tracking=none"]
SECONDS, TOGETHER = "SCALE_SECONDS", "SCALE_TOGETHER"
MOST_S = 300.0
"""How long a trial waits for the first trials of the other workers, on a machine with much else to do."""
WORKER = "import sys; sys.path.insert(0, {place!r}); from scale import work; work(sys.argv[1])"
BEGUN = ".begun"
GOAL = 0.2


def sleeping(job: Job, link: Any) -> None:
    """A trial that sleeps and finishes; while workers start, not before each of them has a trial."""
    if together := int(os.environ[TOGETHER]):
        (job.path / BEGUN).touch()
        end_s = time.monotonic() + MOST_S
        while len(list(job.path.parent.glob(f"*/{BEGUN}"))) < together and time.monotonic() < end_s:
            time.sleep(0.5)
    time.sleep(float(os.environ[SECONDS]))
    write_json(RunFolder(job.path).result, {"state": "finished", "validation": {"log_loss": 1.0}})


def work(path: str) -> None:
    """One worker, until no trial is left."""
    from rich.console import Console

    process_pool.WARM[:] = ["danube_sweep.sweeping.execute.child_process"]
    source, terminal = FolderSource(SweepFolder(Path(path))), Terminal(Console(quiet=True))
    Executor(source, Sweep(stagger_s=0, pack=1), Slots([{"SLOT": "0"}]), terminal, lambda: False, sleeping).run()
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # its CPU seconds count once it is reaped


def cpu_seconds(folder: Path, workers: int, seconds: float, together: int = 0) -> float:
    """Of all processes of `workers` that share the sweep, until it has ended."""
    command = [sys.executable, "-c", WORKER.format(place=str(Path(__file__).parent)), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {SECONDS: str(seconds), TOGETHER: str(together)}
    running = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    spent = 0.0
    for one in running:
        _, status, usage = os.wait4(one.pid, 0)
        if status != 0:
            raise SystemExit(f"a worker ended with exit code {os.waitstatus_to_exitcode(status)}")
        spent += usage.ru_utime + usage.ru_stime
    return spent


def sweep_of(path: Path, trials: int, lock: str) -> SweepFolder:
    """A sweep of trials that differ in their seed, held by kernels' locks or by leases alone."""
    folder, config = SweepFolder(path), Composer().trial(TINY)
    with folder.locked():
        folder.write({})
        folder.add([(replace(config, seed=seed), [f"seed={seed}"], None) for seed in range(trials)])
    if lock == "lease":
        set_terms(path, Terms(only=True, lease_s=60.0))
    return folder


@cache
def start_s(workers: int, lock: str) -> float:
    """CPU seconds of so many workers over a trial each."""
    with tempfile.TemporaryDirectory() as place:
        return cpu_seconds(sweep_of(Path(place, "sweep"), workers, lock).path, workers, 0, workers)


def measured(workers: int, trials: int, seconds: float, lock: str) -> float:
    """CPU seconds per trial, without those of the start."""
    with tempfile.TemporaryDirectory() as place:
        folder = sweep_of(Path(place, "sweep"), trials, lock)
        all_s = cpu_seconds(folder.path, workers, seconds)
        ended = [len(attempts(entry.folder)) for entry in folder.entries()]
        if ended != [1] * trials:
            raise SystemExit(f"not each of {trials} trials was run once: {ended}")
    return (all_s - start_s(workers, lock)) / max(1, trials - workers)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--trials", default="160")
    parser.add_argument("--seconds", type=float, default=0.2, help="that a trial sleeps")
    parser.add_argument("--locks", default="flock,lease")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
    print(f"{'held by':<8} {'workers':>7} {'trials':>7} {'CPU s per trial':>16}   against the first row")
    for lock in options.locks.split(","):
        base = None
        rows = product(map(int, options.trials.split(",")), map(int, options.workers.split(",")))
        for trials, workers in rows:
            each_s = measured(workers, trials, options.seconds, lock)
            base = base or each_s
            ratio = each_s / base
            missed = "" if ratio <= 1 + GOAL else f"   goal missed: at most {1 + GOAL:.2f}x"
            print(f"{lock:<8} {workers:>7} {trials:>7} {each_s:>16.3f}   {ratio:.2f}x{missed}", flush=True)


if __name__ == "__main__":
    main()
