"""The same sweep over a pretrained model by this tool and by a competent user's script: seconds to the same good model.

    python benchmarks/real_sweep.py RECORDS [--model FOLDER] [--data FOLDER] [--only banking77] [--clock cpu]
    python benchmarks/real_sweep.py RECORDS --model FOLDER --device cuda

24 trials over rate, rank, targets and last_k on banking77, then on arena_human, beside each other:

- The baseline is benchmarks/baseline_hf.py, one warm process that trains the trials one after the other. Its readings
  are recorded once, and replayed in ten random orders of the trials.
- This tool sweeps them with packs, a shared prefix whose states are kept on disk, flat batches, pausing, and evaluation
  by tokens. On banking77 each of these is then left out in turn. The baseline evaluates 64 rows at a time. The trials
  of this tool are in random order too, so they are given to it as `danube-sweep -m` has them once its grid is expanded
  (`time_to_best.run_cells`).

Both sides train the whole grid with each seed, and sweeps with the same seed are compared. The target is the baseline's
expected best over orders and seeds. Every order trains all trials, so it is the mean over seeds of the lowest
validation loss. A side has reached it with a loss within .01. A baseline without such a loss counts with the seconds of
its whole sweep (`readings.ratios`).

The clock starts with the command, so imports, the loading and quantising of the backbone, planning, checkpoints and
ranking count, and no cache is warm. It stops for the test part, on which each winner is scored at the step of its best
validation. The difference of the winners, in the mean over seeds, has a 95 % interval over groups of test rows
(`bootstrap.paired`). It does not cover the choice of seeds.

RECORDS receives the pretrained tiny model (`experiment=pretrain_tiny`, 12 minutes, unless `--model` names another), a
line for every event of the baseline, and a file for every sweep of this tool. The same call goes on where it was
stopped, and only prints what is there: the baseline goes on with its next trial, this tool with its next sweep.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import sides
from readings import Log, replay
from real_sweep_table import EVERYTHING, Ours, Theirs, Winner, show
from time_to_best import run_in_order

ON = {
    "pack": "sweep.pack=auto",
    "kept": "data.cache_prefix=true",
    "layout": "data.layout=auto",
    "pruner": "pruner=asha",
    "evaluation": "trainer.eval_batch=null",
}
THEIR_EVALUATION = "trainer.eval_batch=64"
OWN_ORDERS = "without a shared or kept prefix"
LEFT_OUT = {
    "without packs": {"pack": "sweep.pack=1"},
    "without kept states": {"kept": "data.cache_prefix=false"},
    OWN_ORDERS: {"kept": "data.cache_prefix=false"},
    "without flat batches": {"layout": "data.layout=padded"},
    "without pausing": {"pruner": "pruner=none"},
    "without evaluation by tokens": {"evaluation": THEIR_EVALUATION},
    "without any of them": {
        "pack": "sweep.pack=1",
        "kept": "data.cache_prefix=false",
        "layout": "data.layout=padded",
        "pruner": "pruner=none",
        "evaluation": THEIR_EVALUATION,
    },
}
"""What an arm changes. That of `OWN_ORDERS` also gives each trial an order of its own, so its trials are others."""
DATA = {
    "banking77": ["data.path=FOLDER/banking77_train.csv", "data.test_path=FOLDER/banking77_test.csv"],
    "arena_human": ["data.path=FOLDER/arena_human.csv", "data.swap_augment=false", "data.test_fraction=0.25"],
}
RATES = {"banking77": "1e-3,3e-3,1e-2", "arena_human": "2e-4,5e-4,1.5e-3"}
SETTINGS = ("model", "rows", "validation", "max_length", "batch", "steps", "validations", "rates", "last_k")
SETTINGS += ("precision", "compute", "clock", "device", "eval_batch", "variant")
"""The options that records depend on."""
EARLIER = {"device": "cpu", "eval_batch": "64", "variant": "auto"}
"""Those of records from versions that had no such option."""


class Study:
    """A data set's sweep, and its records."""

    def __init__(self, options: argparse.Namespace, data: str, model: Path, folder: Path) -> None:
        from danube_sweep.composer import Composer

        self.options, self.data, self.folder = options, data, folder
        self._composer = Composer()
        every = options.steps // options.validations
        if every * options.validations != options.steps:
            raise SystemExit(
                f"--steps must be a multiple of --validations, got {options.steps} and {options.validations}"
            )
        source = [word.replace("FOLDER", str(options.data.absolute())) for word in DATA[data]]
        common = [f"experiment={data}", "model=auto", f"model.path={model}", f"model.variant={options.variant}"]
        common += [*source, *sides.place(options.device)]
        common += [f"data.max_rows={options.rows}", f"data.validation_fraction={options.validation}"]
        common += [f"data.max_length={options.max_length}", "trainer.score_test=false"]
        common += [f"precision={options.precision}", f"precision.compute={options.compute}"]
        common += [f"trainer.{name}_batch={options.batch}" for name in ("micro", "effective")]
        self.common = [*common, f"trainer.max_steps={options.steps}", f"trainer.validate_every={every}"]
        layers = int(json.loads((model / "config.json").read_text())["num_hidden_layers"])
        last_k = options.last_k or f"{max(1, layers // 4)},{max(2, layers // 2)}"
        axes = {"optimizer.lr": options.rates or RATES[data], "lora.rank": "4,16"}
        axes |= {"lora.targets": "qv,all_linear", "lora.last_k": last_k}
        self.axes = {name: values.split(",") for name, values in axes.items()}
        self._keep_settings()

    def _keep_settings(self) -> None:
        file = self.folder / "settings.json"
        now = {name: str(getattr(self.options, name)) for name in SETTINGS}
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(now))
        then = json.loads(file.read_text())
        for name, value in now.items():
            if (kept := then.get(name, EARLIER.get(name))) != value:
                raise SystemExit(
                    f"{self.folder} was recorded with --{name.replace('_', '-')} {kept}, not {value}; "
                    "give the same again, or another folder"
                )

    # -------------------------------------------------------------------------------------------------- the baseline

    def baseline(self) -> list[Theirs]:
        """Trains what is left of the baseline; returns its sweep with each seed."""
        return [self._theirs(seed) for seed in range(self.options.seeds)]

    def _theirs(self, seed: int) -> Theirs:
        from danube_sweep.config.identity import trial_hash

        clock = self.options.clock
        common = [*self.common, THEIR_EVALUATION, f"seed={seed}"]
        configs = [self._composer.trial([*common, *cell]) for cell in sides.cells(self.axes)]
        names = [trial_hash(config) for config in configs]
        # A file for each seed: a trial is scored on the test part only where it is the best of its file.
        file = self.folder / (f"baseline-{seed}.jsonl" if seed else "baseline.jsonl")
        log = Log(file)
        if not log.courses(clock).keys() >= set(names):
            task = self.folder / f"task-{seed}"
            sides.write_task(configs, task)
            sides.run_baseline(task, file, clock)
        known, start_up = log.courses(clock), log.start_up(clock)
        orders = [random.Random(number).sample(names, len(names)) for number in range(self.options.orders)]
        return Theirs({name: known[name] for name in names}, [replay(start_up, known, order) for order in orders])

    # ------------------------------------------------------------------------------------------------------ this tool

    def arms(self) -> dict[str, list[list[Ours]]]:
        """Runs the sweeps of this tool that are not on record; of each arm, a list for each seed, by order."""
        on = {**ON, "evaluation": f"trainer.eval_batch={self.options.eval_batch}"}
        wanted = {EVERYTHING: on}
        if self.options.ablation and self.data == "banking77":
            wanted |= {
                name: {**on, **changed} for name, changed in LEFT_OUT.items() if not changed.items() <= on.items()
            }
        orders = range(self.options.our_orders)
        found = {}
        for name, settings in wanted.items():
            earlier = self.folder / f"{name.replace(' ', '-')}.json"
            if earlier.is_file():
                print(f"{earlier} is not used: an earlier version recorded it in the order of the grid")
            found[name] = [
                [self._ours(name, settings, seed, order) for order in orders] for seed in range(self.options.seeds)
            ]
        return found

    def _ours(self, name: str, settings: Mapping[str, str], seed: int, order: int) -> Ours:
        file = self.folder / f"{name.replace(' ', '-')}-seed-{seed}-order-{order}.json"
        if not file.is_file():
            cells = sides.cells(self.axes)
            if name == OWN_ORDERS:
                cells = [[*cell, f"data.order_seed={number}"] for number, cell in enumerate(cells)]
            random.Random(f"{seed} {order}").shuffle(cells)
            words = [*self.common, *settings.values(), "sweep.baseline=none", "sweep.score_test=false", f"seed={seed}"]
            self._sweep([[*words, *cell] for cell in cells], file.with_suffix("")).save(file)
            print(f"{self.data}: {name}, seed {seed}, order {order}: recorded", flush=True)
        return Ours.load(file)

    def _sweep(self, cells: Sequence[list[str]], folder: Path) -> Ours:
        cache = folder.with_suffix(".cache")
        for left in (folder, cache):
            shutil.rmtree(left, ignore_errors=True)
        before = os.environ.get("DANUBE_SWEEP_CACHE")
        os.environ["DANUBE_SWEEP_CACHE"] = str(cache)
        try:
            reading = run_in_order(cells, folder, self.options.clock)
            return Ours(reading, winner_of(folder, self.options.device))
        finally:
            shutil.rmtree(cache, ignore_errors=True)
            del os.environ["DANUBE_SWEEP_CACHE"]
            if before is not None:
                os.environ["DANUBE_SWEEP_CACHE"] = before

    def test_groups(self) -> Any:
        """A code of each test row's group."""
        from danube_sweep.data.encoded import load

        rows = load(self.folder / "task-0" / "test.npz")
        codes = np.arange(len(rows.ids)) if rows.example_groups is None else rows.example_groups
        return np.unique(codes, return_inverse=True)[1]


def winner_of(folder: Path, device: str) -> Winner:
    """The winner of a sweep's own ranking, scored on the test part."""
    from danube_sweep.config.schema import Device
    from danube_sweep.inference.score_test import evaluate_test
    from danube_sweep.results.rank import rank_sweep
    from danube_sweep.results.rows import winner

    best = winner(rank_sweep(folder))
    if best is None or best.mean is None:
        raise SystemExit(f"{folder}: the sweep has no winner")
    (name,) = best.used or best.trials
    where = Device(accelerator=device, threads=1 if device == "cpu" else None)
    losses_N = evaluate_test(folder / name, where).losses_N
    return Winner(name, best.mean, [float(loss) for loss in losses_N])


# -------------------------------------------------------------------------------------------------------- the command


def pretrained(options: argparse.Namespace) -> Path:
    """The model's folder; without one given, the tiny one, which is pretrained first."""
    if options.model is not None:
        return Path(options.model).absolute()
    run = options.records.absolute() / "pretrained"
    if not (run / "result.json").is_file():
        print(f"pretraining the tiny model in {run}", flush=True)
        words = ["experiment=pretrain_tiny", *sides.place(options.device), f"hydra.run.dir={run}"]
        environment = {**sides.quiet_environment(), "DANUBE_SWEEP_DATA": str(options.data.absolute())}
        done = subprocess.run(
            [sys.executable, "-m", "danube_sweep", *words], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"pretraining ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return run / "model"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="a folder for the records")
    parser.add_argument("--model", type=Path, help="a pretrained folder instead of experiment=pretrain_tiny")
    parser.add_argument(
        "--variant", choices=["auto", "base", "chat"], default="auto", help="base: texts without chat markup"
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    parser.add_argument("--only", choices=list(DATA), help="one of the data sets")
    parser.add_argument("--clock", choices=sides.CLOCKS, default="wall", help="cpu: where others use the machine too")
    parser.add_argument("--orders", type=int, default=10, help="of the baseline's trials, for each seed")
    parser.add_argument(
        "--our-orders", type=int, default=1, help="of this tool's trials, a sweep for each and each seed"
    )
    parser.add_argument("--no-ablation", dest="ablation", action="store_false", help="only the headline")
    parser.add_argument("--rows", type=int, default=1000, help="of each part at most")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the training file that validates")
    parser.add_argument("--max-length", type=int, default=48, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--steps", type=int, default=60, help="of a trial")
    parser.add_argument("--validations", type=int, default=5, help="of a trial")
    parser.add_argument("--rates", help="three, with commas; by default those that suit the tiny model")
    parser.add_argument("--last-k", help="two, with commas; by default a quarter and half of the blocks")
    parser.add_argument("--precision", default="nf4")
    parser.add_argument("--compute", default="fp32", help="type of the arithmetic")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--eval-batch",
        default="null",
        help="rows that this tool validates at a time, 64 in old records; null: by tokens",
    )
    parser.add_argument("--seeds", type=int, default=3, help="with each, both sides train the whole grid")
    options = parser.parse_args(arguments)
    for name in ("seeds", "orders", "our_orders"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    model = pretrained(options)
    for data in [options.only] if options.only else DATA:
        study = Study(options, data, model, options.records.absolute() / data)
        theirs, arms = study.baseline(), study.arms()
        show(data, options, study.test_groups(), theirs, arms)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sweep in hand is stopped too
    main()
