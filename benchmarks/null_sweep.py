"""Trains equal trials of the default task, whose seed and order differ, and keeps their readings for null sweeps.

    python benchmarks/null_sweep.py DIR [--trials 60] [--steps 60]

DIR receives the sweep; where it was interrupted, the same call goes on with it. benchmarks/null_sweep.npz then holds

    losses_TN   loss of every validation row in every trial, float16
    group_N     rows with equal numbers share a prompt
    seed_T      the trial's seed, which also orders its rows
    steps       optimizer steps of a trial

so that sweeps of equal trials can be drawn from them without training: every difference between trials is noise.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as parquet

READINGS = Path(__file__).with_suffix(".npz")


def train(folder: Path, trials: int, steps: int) -> None:
    """Trains the sweep in `folder`, or what is left of it."""
    if (folder / "sweep.json").is_file():
        words = ["resume", str(folder)]
    else:
        seeds = ",".join(map(str, range(trials)))
        words = ["-m", f"seed={seeds}", f"trainer.max_steps={steps}", f"trainer.validate_every={steps}"]
        words += ["trainer.micro_batch=16", "device=cpu", "device.threads=1", "tracking=none", "sweep.slots=1"]
        words += ["sweep.baseline=none", f"hydra.sweep.dir={folder}"]
    subprocess.run([sys.executable, "-m", "danube_sweep", *words], check=True)


def readings(folder: Path) -> dict[str, np.ndarray]:
    """The losses of all finished trials, rows in one order."""
    runs = sorted(file.parent for file in folder.glob("*/predictions.parquet"))
    tables = [parquet.read_table(run / "predictions.parquet").sort_by("id") for run in runs]
    assert all(table["id"].equals(tables[0]["id"]) for table in tables), "trials were validated on different rows"
    groups = tables[0]["group"].to_pylist()
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return {
        "losses_TN": np.stack([table["loss"].to_numpy() for table in tables]).astype(np.float16),
        "group_N": np.array([numbers[group] for group in groups], dtype=np.int32),
        "seed_T": np.array([int(run.name.split("seed-")[1].split("_")[0]) for run in runs], dtype=np.int32),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=READINGS)
    options = parser.parse_args(arguments)
    train(options.folder, options.trials, options.steps)
    found = readings(options.folder)
    np.savez_compressed(options.out, **found, steps=np.array(options.steps))
    means_T = found["losses_TN"].astype(np.float64).mean(axis=1)
    print(f"{len(means_T)} trials, {found['losses_TN'].shape[1]} rows in {found['group_N'].max() + 1} groups")
    print(f"mean loss {means_T.mean():.4f}, standard deviation over trials {means_T.std(ddof=1):.4f}")
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
