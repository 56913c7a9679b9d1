"""What a trial costs besides its training when more workers share a sweep: CPU seconds of all workers per trial,
against those of one worker. The trials sleep and write a result, each in a process of its own.

    python benchmarks/scale.py [--workers 1,2,4,8] [--trials 160] [--seconds 0.2] [--locks flock,lease]

CPU seconds of the workers, of the processes that trials are forked from and of the trials are counted. The same workers
over one trial are subtracted, for their start. The parents of the trials have imported nothing of torch, so that a fork
costs little; benchmarks/sweep_overhead.py has whole trials.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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
SECONDS = "SCALE_SECONDS"
WORKER = "import sys; sys.path.insert(0, {place!r}); from scale import work; work(sys.argv[1])"
GOAL = 0.2


def sleeping(job: Job, link: Any) -> None:
    """A trial that sleeps and finishes."""
    time.sleep(float(os.environ[SECONDS]))
    write_json(RunFolder(job.path).result, {"state": "finished", "validation": {"log_loss": 1.0}})


def work(path: str) -> None:
    """One worker, until no trial is left."""
    from rich.console import Console

    process_pool.WARM[:] = ["danube_sweep.sweeping.execute.child_process"]
    source, terminal = FolderSource(SweepFolder(Path(path))), Terminal(Console(quiet=True))
    Executor(source, Sweep(stagger_s=0, pack=1), Slots([{"SLOT": "0"}]), terminal, lambda: False, sleeping).run()
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # its CPU seconds count once it is reaped


def cpu_seconds(folder: Path, workers: int, seconds: float) -> float:
    """Of all processes of `workers` that share the sweep, until it has ended."""
    command = [sys.executable, "-c", WORKER.format(place=str(Path(__file__).parent)), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", SECONDS: str(seconds), "CUDA_VISIBLE_DEVICES": ""}
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


def measured(workers: int, trials: int, seconds: float, lock: str) -> float:
    """CPU seconds per trial, without those of the start."""
    with tempfile.TemporaryDirectory() as place:
        start_s = cpu_seconds(sweep_of(Path(place, "one"), 1, lock).path, workers, seconds)
        folder = sweep_of(Path(place, "all"), trials, lock)
        all_s = cpu_seconds(folder.path, workers, seconds)
        ended = [len(attempts(entry.folder)) for entry in folder.entries()]
        if ended != [1] * trials:
            raise SystemExit(f"not each of {trials} trials was run once: {ended}")
    return (all_s - start_s) / max(1, trials - 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=0.2, help="that a trial sleeps")
    parser.add_argument("--locks", default="flock,lease")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}; {options.trials} trials")
    print(f"{'held by':<8} {'workers':>7} {'CPU s per trial':>16}   against {options.workers.partition(',')[0]} worker")
    for lock in options.locks.split(","):
        base = None
        for workers in map(int, options.workers.split(",")):
            each_s = measured(workers, options.trials, options.seconds, lock)
            base = base or each_s
            ratio = each_s / base
            missed = "" if ratio <= 1 + GOAL else f"   goal missed: at most {1 + GOAL:.2f}x"
            print(f"{lock:<8} {workers:>7} {each_s:>16.3f}   {ratio:.2f}x{missed}", flush=True)


if __name__ == "__main__":
    main()
