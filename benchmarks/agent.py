"""Trials of a W&B sweep through `danube-sweep agent`, which packs them, against one stock agent, in turn.

    python benchmarks/agent.py [--trials 16] [--at-once 8] [--steps 10]

Both use the stock wandb client against a server on the loopback, which hands out the same points. It prints the CPU
seconds of all processes of an arm (user and system), the wall seconds, and the largest difference of a validation loss.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from sweep_overhead import TINY
from wandb_controller import Handed
from wandb_server import ENTITY, PROJECT, Server, clients_environment

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: the executor outlives the process that starts it, and is to be counted
FIXED = [
    *TINY[:-2],
    "precision=fp32",
    "tracking=wandb",
    "tracking.timeout_s=60",
]  # TINY ends in its tracker and baseline


@dataclass
class Arm:
    """What one way of running the trials cost, and the results by hash."""

    cpu_s: float
    wall_s: float
    losses: dict[str, float]
    packs: int


def run(server: Server, place: Path, command: list[str], steps: int, trials: int) -> Arm:
    """Runs the sweep's trials by `command`, which takes the sweep's path; returns when its processes have ended."""
    words = ["${env}", sys.executable, "-m", "danube_sweep", "${args_no_hyphens}", *FIXED, f"trainer.max_steps={steps}"]
    name = place.name
    server.sweeps[name] = Handed({"name": name, "method": "grid", "parameters": {}, "command": words})
    rates = [f"{1e-4 * (1 + number):.1e}" for number in range(trials)]
    server.sweeps[name].waiting = [(f"{name}{rate}", {"optimizer.lr": float(rate)}) for rate in rates]
    environment = {**clients_environment(server.url, place / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {"DANUBE_SWEEP_CACHE": str(place.parent / "cache")}
    before, start = _spent(), time.perf_counter()
    with (place / "printed.txt").open("w") as printed:
        line = [*command, f"{ENTITY}/{PROJECT}/{name}"]
        agent = subprocess.Popen(line, cwd=place, env=environment, stdout=printed, stderr=printed)
        agent.wait()
    wall_s = time.perf_counter() - start
    with suppress(ChildProcessError):
        while True:
            os.wait()
    results = [json.loads(file.read_text()) for file in (place / "multirun" / name).glob("*/result.json")]
    losses = {one["trial"]: one["validation"]["log_loss"] for one in results if one["state"] == "finished"}
    if len(losses) < trials:
        raise SystemExit(f"{trials - len(losses)} of {trials} trials did not finish; see {place / 'printed.txt'}")
    return Arm(_spent() - before, wall_s, losses, len(list((place / "multirun" / name).glob("p*.log"))))


def _spent() -> float:
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(argv)
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        places = {name: Path(folder, name) for name in ("warm", "stock", "packed")}
        for place in places.values():
            place.mkdir()
        stock = [sys.executable, "-m", "wandb", "agent"]
        pack = ["--trials", str(options.at_once), f"sweep.pack={options.at_once}"]
        packed = [sys.executable, "-m", "danube_sweep", "agent", *pack]
        run(server, places["warm"], stock, 1, 1)  # fills the caches of both
        arms = {
            "one stock agent": run(server, places["stock"], stock, options.steps, options.trials),
            f"danube-sweep agent --trials {options.at_once}": run(
                server, places["packed"], packed, options.steps, options.trials
            ),
        }
    (name, one), (other, many) = arms.items()
    print(f"{options.trials} trials of {options.steps} steps")
    for label, arm in arms.items():
        print(f"{label:32}  {arm.cpu_s:7.1f} CPU s  {arm.wall_s:7.1f} s  {arm.packs} packs")
    worst = max(abs(one.losses[identity] - many.losses[identity]) for identity in one.losses)
    same = "the same" if one.losses.keys() == many.losses.keys() else "DIFFERENT"
    print(f"{name} / {other}: {one.cpu_s / many.cpu_s:.2f} in CPU seconds, {one.wall_s / many.wall_s:.2f} in wall time")
    print(f"{same} hashes; the largest difference of a validation loss is {worst:.1e}")


if __name__ == "__main__":
    main()
