"""Trains sweeps whole, without early stopping, and keeps every validation: what benchmarks/early_stopping.py replays.

    python benchmarks/record_readings.py DIR [--data FOLDER] [--tiny FOLDER] [--real FOLDER] [--only banking]

DIR receives the sweeps; where it was interrupted the same call goes on with it, and what has ended is only read.
`--data` names the folder with banking77_train.csv and arena_human.csv, `--tiny` a backbone of
`experiment=pretrain_tiny`, `--real` a pretrained model of any size. Without one of them its sweeps are left out.

benchmarks/early_stopping.npz then holds under each sweep's name its validation losses, an array of trials by readings,
at equal steps, and under `NAME/steps` the optimizer steps of a trial. Sweeps recorded before are kept.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

READINGS = Path(__file__).with_name("early_stopping.npz")
TRIALS = 12
COMMON = [
    *("device=cpu", "device.threads=1", "tracking=none", "sweep.slots=1", "sweep.baseline=none", "pruner=none"),
    *("hydra/sweeper=optuna", "sweep.sampler=random", f"sweep.trials={TRIALS}", "sweep.score_test=false"),
]
SCHEDULES = "schedule=choice(cosine,linear,constant,wsd)"
SHAPE = [
    *("model.shape.hidden_size=64", "model.shape.intermediate_size=192", "model.shape.vocab_size=1024"),
    *("model.shape.num_hidden_layers=2", "model.shape.num_attention_heads=2", "model.shape.num_key_value_heads=1"),
]


@dataclass(frozen=True)
class Recording:
    """A random search that is recorded: its name, its overrides, the steps of a trial and its validations."""

    name: str
    overrides: list[str]
    steps: int
    readings: int


def generated(seed: int) -> Recording:
    """The generated task on random weights."""
    words = [*SHAPE, "data.rows=400", "data.max_length=96", "trainer.micro_batch=16", "trainer.eval_batch=64"]
    space = [
        "optimizer.lr=tag(log,interval(2e-4,2e-2))",
        "lora.rank=choice(4,16)",
        "lora.targets=choice(qv,all_linear)",
    ]
    return Recording(f"generated-{seed}", [*words, *space, SCHEDULES, f"seed={seed}"], 60, 12)


def banking(seed: int, data: Path, tiny: Path) -> Recording:
    """77 classes on the small pretrained backbone."""
    words = [
        *("experiment=banking77", f"model.path={tiny}", f"data.path={data / 'banking77_train.csv'}"),
        *("data.test_path=null", "trainer.score_test=false", "data.max_length=32", "trainer.eval_batch=64"),
        *("data.max_rows=2000", "trainer.micro_batch=16", "trainer.effective_batch=16"),
    ]
    space = [
        *("optimizer.lr=tag(log,interval(5e-4,2e-2))", "lora.rank=choice(4,16)", "head.pooling=choice(mean,last)"),
        *("optimizer=choice(adamw,lion_8bit)" if seed % 2 else "lora.dropout=choice(0.0,0.1)", SCHEDULES),
    ]
    return Recording(f"banking-{seed}", [*words, *space, f"seed={seed}"], 120, 12)


def arena(seed: int, data: Path, tiny: Path) -> Recording:
    """Preferences on the small pretrained backbone: hardly more than noise."""
    words = [
        *("experiment=arena_human", f"model.path={tiny}", f"data.path={data / 'arena_human.csv'}"),
        *("data.max_length=96", "data.swap_augment=false", "data.max_rows=900", "trainer.eval_batch=64"),
    ]
    space = ["optimizer.lr=tag(log,interval(5e-5,5e-3))", "lora.rank=choice(4,16)", SCHEDULES]
    return Recording(f"arena-{seed}", [*words, *space, f"seed={seed}"], 60, 10)


def real(seed: int, data: Path, model: Path) -> Recording:
    """77 classes on a pretrained model, of which the last two blocks are adapted."""
    words = [
        *("experiment=banking77", "model=auto", f"model.path={model}", f"data.path={data / 'banking77_train.csv'}"),
        *("data.test_path=null", "trainer.score_test=false", "data.max_length=32", "trainer.eval_batch=32"),
        *("lora.last_k=2", "data.cache_prefix=true", "precision=nf4", "precision.compute=fp32"),
        *("data.max_rows=800", "trainer.micro_batch=16", "trainer.effective_batch=16"),
    ]
    space = [
        *("optimizer.lr=tag(log,interval(1e-4,1e-2))", "lora.rank=choice(4,16)", "head.pooling=choice(mean,last)"),
        SCHEDULES,
    ]
    return Recording(f"real-{seed}", [*words, *space, f"seed={seed}"], 60, 10)


def recordings(options: argparse.Namespace) -> Iterator[Recording]:
    """The sweeps in the order of their recording, kinds in turn."""
    for seed in range(10):
        if options.data and options.real and seed < 6:
            yield real(seed, options.data, options.real)
        if options.data and options.tiny:
            yield banking(seed, options.data, options.tiny)
        yield generated(seed)
        if options.data and options.tiny and seed < 6:
            yield arena(seed, options.data, options.tiny)


def train(recording: Recording, folder: Path) -> None:
    """Trains the sweep in `folder`, or what is left of it."""
    if (folder / "ended").is_file():
        return
    steps = [f"trainer.max_steps={recording.steps}", f"trainer.validate_every={recording.steps // recording.readings}"]
    place = [f"hydra.sweep.dir={folder}", f"sweep.sampler_seed={recording.name.rpartition('-')[2]}"]
    command = [sys.executable, "-m", "danube_sweep", "-m", *COMMON, *recording.overrides, *steps, *place]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{recording.name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    (folder / "ended").touch()


def curves(folder: Path, recording: Recording) -> np.ndarray:
    """The validation losses of the trials that came to their end."""
    found = []
    for file in sorted(folder.glob("*/metrics.csv")):
        with file.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["part"] == "validation"]
        values = [float(row["log_loss"]) for row in rows]
        if len(values) == recording.readings and all(np.isfinite(values)):
            found.append(values)
    return np.array(found, dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in ("data", "tiny", "real"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--only", default="", help="the beginning of the names of those to record")
    parser.add_argument("--steps", type=int, help="of a trial, instead of its own number: tries the script out")
    parser.add_argument("--out", type=Path, default=READINGS)
    options = parser.parse_args(arguments)
    known = dict(np.load(options.out)) if options.out.is_file() else {}
    for recording in recordings(options):
        if not recording.name.startswith(options.only):
            continue
        if options.steps is not None:
            recording = replace(recording, steps=options.steps, readings=min(options.steps, recording.readings))
        folder = options.folder.absolute() / recording.name
        train(recording, folder)
        losses_TV = curves(folder, recording)
        known[recording.name], known[f"{recording.name}/steps"] = losses_TV, np.array(recording.steps)
        np.savez_compressed(options.out, **known)
        best = losses_TV.min(axis=1)
        print(f"{recording.name}: {len(losses_TV)} trials, best {best.min():.4f}, worst {best.max():.4f}", flush=True)


if __name__ == "__main__":
    main()
