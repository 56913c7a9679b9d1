"""The same sweep over a pretrained model by this tool and by a competent user's script: seconds to the same good model.

    python benchmarks/real_sweep.py RECORDS [--model FOLDER] [--data FOLDER] [--only banking77] [--clock cpu]

24 trials over rate, rank, targets and last_k on banking77, then on arena_human, beside each other:

- The baseline is benchmarks/baseline_hf.py, one warm process that trains the trials one after the other. Its readings
  are recorded once, and replayed in ten random orders of the trials. The best few cells are trained with further seeds,
  and a replay takes one of its seeds for each cell.
- This tool is the command `danube-sweep -m` with packs, a shared prefix whose states are kept on disk, flat batches and
  pausing. On banking77 each of these is then left out in turn.

The target is the expected best of the baseline over orders and seeds (`readings.expected_best`); a side has reached it
with a loss within .01. The clock starts with the command, so imports, the loading and quantising of the backbone,
planning, checkpoints and ranking count, and no cache is warm. It stops for the test part, on which each winner is
scored at the step of its best validation. The difference of the winners has a 95 % interval over groups of test rows
(`bootstrap.paired`).

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
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import sides
from readings import Course, Log, Reading, expected_best, replay
from time_to_best import own_orders

WITHIN, GOAL = 0.01, 5.0
ROUNDING = 1e-4
"""Two test losses this close are those of the same trial, computed on either side."""
ON = {
    "pack": "sweep.pack=auto",
    "kept": "data.cache_prefix=true",
    "layout": "data.layout=auto",
    "pruner": "pruner=asha",
}
EVERYTHING, OWN_ORDERS = "everything on", "without a shared or kept prefix"
LEFT_OUT = {
    "without packs": {"pack": "sweep.pack=1"},
    "without kept states": {"kept": "data.cache_prefix=false"},
    OWN_ORDERS: {"kept": "data.cache_prefix=false"},
    "without flat batches": {"layout": "data.layout=padded"},
    "without pausing": {"pruner": "pruner=none"},
    "without any of them": {
        "pack": "sweep.pack=1",
        "kept": "data.cache_prefix=false",
        "layout": "data.layout=padded",
        "pruner": "pruner=none",
    },
}
"""What an arm changes. That of `OWN_ORDERS` also gives each trial an order of its own, so its trials are others."""
DATA = {
    "banking77": ["data.path=FOLDER/banking77_train.csv", "data.test_path=FOLDER/banking77_test.csv"],
    "arena_human": ["data.path=FOLDER/arena_human.csv", "data.swap_augment=false", "data.test_fraction=0.25"],
}
RATES = {"banking77": "1e-3,3e-3,1e-2", "arena_human": "2e-4,5e-4,1.5e-3"}
SETTINGS = ("model", "rows", "validation", "max_length", "batch", "steps", "validations", "rates", "last_k")
SETTINGS += ("precision", "compute", "clock")
"""The options that records depend on."""


@dataclass
class Winner:
    """The trial of a sweep with the lowest validation loss, its words in the grid, and the losses of the test rows."""

    name: str
    validation: float
    test: list[float]


@dataclass
class Ours:
    """A sweep of this tool."""

    reading: Reading
    winner: Winner

    def save(self, file: Path) -> None:
        rows = [[*key, loss, self.reading.seconds[key]] for key, loss in self.reading.losses.items()]
        whole = {"readings": rows, "total": self.reading.total, "winner": vars(self.winner)}
        file.with_suffix(".part").write_text(json.dumps(whole))
        file.with_suffix(".part").replace(file)

    @classmethod
    def load(cls, file: Path) -> "Ours":
        stored = json.loads(file.read_text())
        reading = Reading(total=stored["total"])
        for trial, step, loss, seconds in stored["readings"]:
            reading.add(trial, step, loss, seconds)
        return cls(reading, Winner(**stored["winner"]))


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
        common = [f"experiment={data}", "model=auto", f"model.path={model}", *source, *sides.place("cpu")]
        common += [f"data.max_rows={options.rows}", f"data.validation_fraction={options.validation}"]
        common += [f"data.max_length={options.max_length}", "trainer.score_test=false", "trainer.eval_batch=64"]
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
            if then.get(name) != value:
                raise SystemExit(
                    f"{self.folder} was recorded with --{name.replace('_', '-')} {then.get(name)}, not {value}; "
                    "give the same again, or another folder"
                )

    # -------------------------------------------------------------------------------------------------- the baseline

    def baseline(self) -> list[list[str]]:
        """Trains what is left of the baseline; returns its trials by cell, each cell's first seed first."""
        cells = sides.cells(self.axes)
        first = self._trained(cells, 0)
        best = sorted(range(len(cells)), key=lambda place: self.courses[first[place]].best)[: self.options.again]
        trials = [[name] for name in first]
        for seed in range(1, self.options.seeds):
            for place, name in zip(best, self._trained([cells[place] for place in best], seed), strict=True):
                trials[place].append(name)
        return trials

    def _trained(self, cells: Sequence[Sequence[str]], seed: int) -> list[str]:
        from danube_sweep.config.identity import trial_hash

        configs = [self._composer.trial([*self.common, *cell, f"seed={seed}"]) for cell in cells]
        names = [trial_hash(config) for config in configs]
        if not self.log.courses("cpu").keys() >= set(names):
            task = self.folder / f"task-{seed}"
            sides.write_task(configs, task)
            sides.run_baseline(task, self.folder / "baseline.jsonl", self.options.clock)
        return names

    @property
    def log(self) -> Log:
        return Log(self.folder / "baseline.jsonl")

    @property
    def courses(self) -> Mapping[str, Course]:
        return self.log.courses(self.options.clock)

    # ------------------------------------------------------------------------------------------------------ this tool

    def arms(self) -> dict[str, Ours]:
        """Runs the sweeps of this tool that are not on record."""
        wanted = {EVERYTHING: dict[str, str]()}
        if self.options.ablation and self.data == "banking77":
            wanted |= LEFT_OUT
        found = {}
        for name, changed in wanted.items():
            file = self.folder / f"{name.replace(' ', '-')}.json"
            if not file.is_file():
                self._sweep(name, {**ON, **changed}, file.with_suffix("")).save(file)
                print(f"{self.data}: {name}: recorded", flush=True)
            found[name] = Ours.load(file)
        return found

    def _sweep(self, name: str, settings: Mapping[str, str], folder: Path) -> Ours:
        cache = folder.with_suffix(".cache")
        for left in (folder, cache):
            shutil.rmtree(left, ignore_errors=True)
        words = [*self.common, *settings.values(), "sweep.baseline=none", "sweep.score_test=false"]
        before = os.environ.get("DANUBE_SWEEP_CACHE")
        os.environ["DANUBE_SWEEP_CACHE"] = str(cache)
        try:
            if name == OWN_ORDERS:
                reading = own_orders(words, self.axes, folder, self.options.clock)
            else:
                reading = sides.run_sweep([*words, *sides.grid(self.axes)], folder, clock=self.options.clock)
            return Ours(reading, winner_of(folder))
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


def winner_of(folder: Path) -> Winner:
    """The winner of a sweep's own ranking, scored on the test part."""
    from danube_sweep.config.schema import Device
    from danube_sweep.inference.score_test import evaluate_test
    from danube_sweep.results.rank import rank_sweep
    from danube_sweep.results.rows import winner

    best = winner(rank_sweep(folder))
    if best is None or best.mean is None:
        raise SystemExit(f"{folder}: the sweep has no winner")
    (name,) = best.used or best.trials
    losses_N = evaluate_test(folder / name, Device(accelerator="cpu", threads=1)).losses_N
    return Winner(name, best.mean, [float(loss) for loss in losses_N])


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass
class Replays:
    """The baseline in random orders, with a random one of its seeds for each cell."""

    readings: list[Reading]
    target: float
    first: list[str]
    """The trials of the first seed."""

    @classmethod
    def draw(cls, study: Study, trials: Sequence[Sequence[str]]) -> "Replays":
        courses, start_up = study.courses, study.log.start_up(study.options.clock)
        readings = []
        for number in range(study.options.orders):
            draw = random.Random(number)
            order = [draw.choice(names) for names in draw.sample(list(trials), len(trials))]
            readings.append(replay(start_up, courses, order))
        target = expected_best([[courses[name].best for name in names] for names in trials])
        return cls(readings, target, [names[0] for names in trials])

    def ratios(self, ours: float | None) -> list[float]:
        """Of every order: the baseline's seconds to the target over ours; infinite where only we reached it."""
        if ours is None:
            return [0.0] * len(self.readings)
        reached = [one.first(self.target + WITHIN) for one in self.readings]
        return [float("inf") if one is None else one / ours for one in reached]


def spread(values: Sequence[float], digits: int) -> str:
    """The median and the range."""
    told = [
        "never" if value == float("inf") else f"{value:.{digits}f}"
        for value in (statistics.median(values), min(values), max(values))
    ]
    return "{} ({} to {})".format(*told)


def show(study: Study, replays: Replays, arms: Mapping[str, Ours]) -> None:
    """The table of a data set, and its goals."""
    from danube_sweep.results.bootstrap import paired

    options, limit = study.options, replays.target + WITHIN
    total = statistics.median(one.total for one in replays.readings)
    print(f"\n{study.data}: {len(replays.first)} trials of {options.steps} steps, {options.clock} seconds")
    print(
        f"the baseline's expected best is {replays.target:.4f}, so the loss to reach {limit:.4f}; "
        f"{len(replays.readings)} orders"
    )
    print(f"{'':<32} {'to that loss, s':>22} {'ratio':>22} {'whole s':>8} {'ratio':>6}  {'winner, test loss':<20}")
    reached = [one.first(limit) for one in replays.readings]
    theirs = min(replays.first, key=lambda name: study.courses[name].best)
    groups_N, test_N = study.test_groups(), np.array(study.courses[theirs].test)

    def own(losses_N: Any) -> str:
        return "{:.4f} ±{:.4f}".format(*paired(losses_N, groups_N))

    told = spread([float("inf") if one is None else one for one in reached], 0)
    print(f"{'baseline':<32} {told:>22} {'':>22} {total:8.0f} {'':>6}  {own(test_N)}")
    for name, arm in arms.items():
        at = arm.reading.first(limit)
        seconds, ratios = ("never", "") if at is None else (f"{at:.0f}", spread(replays.ratios(at), 2))
        whole = f"{arm.reading.total:8.0f} {total / arm.reading.total:6.2f}"
        print(f"{name:<32} {seconds:>22} {ratios:>22} {whole}  {own(np.array(arm.winner.test))}")
    apart = sides.furthest(arms[EVERYTHING].reading, replay(0.0, study.courses, replays.first))
    print(f"validation losses of {EVERYTHING} and of the baseline: at most {apart:.1e} apart")
    for line in verdicts(replays, arms[EVERYTHING], lambda losses_N: paired(losses_N - test_N, groups_N)):
        print(line)


def verdicts(replays: Replays, ours: Ours, against_theirs: Callable[[Any], tuple[float, float]]) -> Iterator[str]:
    """The goals, met or missed."""
    median = statistics.median(replays.ratios(ours.reading.first(replays.target + WITHIN)))
    said = "met" if median >= GOAL else "missed"
    yield f"goal: at least {GOAL:g} times as fast to that loss, in the median over orders: {median:.2f}: {said}"
    apart, half = against_theirs(np.array(ours.winner.test))
    said = "missed" if apart > half + ROUNDING else "met"
    yield f"goal: the winner's test loss is not higher by more than its interval: {apart:+.4f} ±{half:.4f}: {said}"


# -------------------------------------------------------------------------------------------------------- the command


def pretrained(options: argparse.Namespace) -> Path:
    """The model's folder; without one given, the tiny one, which is pretrained first."""
    if options.model is not None:
        return Path(options.model).absolute()
    run = options.records.absolute() / "pretrained"
    if not (run / "result.json").is_file():
        print(f"pretraining the tiny model in {run}", flush=True)
        words = ["experiment=pretrain_tiny", *sides.place("cpu"), f"hydra.run.dir={run}"]
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
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    parser.add_argument("--only", choices=list(DATA), help="one of the data sets")
    parser.add_argument("--clock", choices=sides.CLOCKS, default="wall", help="cpu: where others use the machine too")
    parser.add_argument("--orders", type=int, default=10)
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
    parser.add_argument("--seeds", type=int, default=3, help="of the best cells of the baseline")
    parser.add_argument("--again", type=int, default=4, help="how many cells these are")
    options = parser.parse_args(arguments)
    model = pretrained(options)
    for data in [options.only] if options.only else DATA:
        study = Study(options, data, model, options.records.absolute() / data)
        trials = study.baseline()
        show(study, Replays.draw(study, trials), study.arms())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sweep in hand is stopped too
    main()
