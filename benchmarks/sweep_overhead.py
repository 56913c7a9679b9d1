"""A sweep of tiny runs, each in a process of its own, against the same cells under Hydra's own launcher and sweeper
(one process, no isolation) and against a shell loop (a fresh process for each). In alternation; medians of wall time.

    python benchmarks/sweep_overhead.py [--rounds 3] [--trials 24] [--steps 10] [--fresh 4] [--only stock|fresh]

A fresh process takes seconds to import its libraries, so only `--fresh` of them run in a round and the loop's time is
extrapolated from them; `--fresh 24` runs them all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TINY = [
    *("model.shape.hidden_size=64", "model.shape.intermediate_size=128", "model.shape.vocab_size=512"),
    *("model.shape.num_hidden_layers=2", "model.shape.num_attention_heads=2", "model.shape.num_key_value_heads=1"),
    *("data.rows=60", "data.max_length=96", "trainer.micro_batch=4", "trainer.effective_batch=8"),
    *("device=cpu", "device.threads=1", "tracking=none", "sweep.baseline=none"),
]
STOCK = ["hydra/launcher=basic", "hydra/sweeper=basic"]


@dataclass
class Bench:
    """The cells and where they run; `seconds` has a wall time per arm and round."""

    lrs: list[str]
    steps: int
    fresh: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ours(self, folder: Path) -> float:
        return self._sweep(folder, [])

    def stock(self, folder: Path) -> float:
        return self._sweep(folder, STOCK)

    def loop(self, folder: Path) -> float:
        """Seconds of a process per cell, extrapolated from the first `fresh` cells."""
        runs = [[f"optimizer.lr={lr}", f"hydra.run.dir={folder / lr}"] for lr in self.lrs[: self.fresh]]
        return sum(self._command(one, folder, 1) for one in runs) * len(self.lrs) / len(runs)

    def _sweep(self, folder: Path, chosen: list[str]) -> float:
        swept = f"optimizer.lr={','.join(self.lrs)}"
        return self._command(["-m", *chosen, swept, f"hydra.sweep.dir={folder}"], folder, len(self.lrs))

    def _command(self, arguments: list[str], folder: Path, trials: int) -> float:
        before = len(list(folder.rglob("result.json")))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling again at each start would flatter the sweep
        start = time.perf_counter()
        command = [sys.executable, "-m", "danube_sweep", *arguments, *TINY, f"trainer.max_steps={self.steps}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        written = len(list(folder.rglob("result.json"))) - before
        if done.returncode or written != trials:
            raise SystemExit(f"{written} results of {trials}, exit code {done.returncode}:\n{done.stderr[-2000:]}")
        return seconds

    def round(self, arms: dict[str, Callable[[Path], float]]) -> None:
        """Runs each arm once in a folder of its own."""
        for name, arm in arms.items():
            with tempfile.TemporaryDirectory() as folder:
                self.seconds.setdefault(name, []).append(arm(Path(folder)))


def compare(bench: Bench, base: str, name: str, target: str) -> None:
    """Prints both medians, the baseline's time over ours, the target for it and the spreads."""
    mine, other = bench.seconds["ours"], bench.seconds[base]
    ratio = statistics.median(other) / statistics.median(mine)
    spread = f"{min(mine):.1f}-{max(mine):.1f} against {min(other):.1f}-{max(other):.1f}"
    medians = f"{statistics.median(mine):7.1f} {statistics.median(other):7.1f}"
    print(f"{name:<56} {medians}   {ratio:5.2f}x (target {target})   {spread}", flush=True)


def warn_of_load() -> None:
    """Says how many cores there are, and whether something else is running on them."""
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, load average {load:.2f} at the start")
    if load > 0.3:
        print("warning: another load is on this machine; single rounds will spread and ratios may move")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of each trial")
    parser.add_argument("--fresh", type=int, default=4, help="fresh processes per round, at most --trials")
    parser.add_argument("--only", choices=["stock", "fresh"], help="one of the two comparisons")
    options = parser.parse_args(arguments)
    warn_of_load()
    fresh = min(options.fresh, options.trials)
    bench = Bench([f"{1e-3 * 1.05**number:.3e}" for number in range(options.trials)], options.steps, fresh)
    bench.round({"warm-up": Bench(bench.lrs[:1], options.steps, 1).loop})  # caches, and the disk's
    arms = {"ours": bench.ours, "stock": bench.stock, "fresh": bench.loop}
    for _ in range(options.rounds):
        bench.round({name: arm for name, arm in arms.items() if name in ("ours", options.only or name)})
    print(f"{f's for {options.trials} trials':<56} {'ours':>7} {'base':>7}   base over ours, medians")
    if options.only != "fresh":
        compare(bench, "stock", "hydra/launcher=basic hydra/sweeper=basic", "at least 0.91x: 1.1 times its time")
    if options.only != "stock":
        run = "all run" if fresh == options.trials else f"{fresh} run, extrapolated to {options.trials}"
        compare(bench, "fresh", f"a fresh process per trial ({run})", "at least 3x")


if __name__ == "__main__":
    main()
