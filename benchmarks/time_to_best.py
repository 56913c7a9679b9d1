"""The headline: a whole sweep on the arena's data, by this tool with everything on and by a competent user's script.

    python benchmarks/time_to_best.py [--quick] [--rounds 1] [--model FOLDER] [--device cuda]

The baseline is benchmarks/baseline_hf.py: transformers + PEFT + bitsandbytes + Trainer, length-grouped batches, one
warm process that trains the cells of the grid in a multirun's order. This tool is the real command, `danube-sweep -m`
with packs, a shared prefix where the trials of a pack adapt only the last blocks, flat batches and ASHA. Both have the
same grid, seeds, steps, batch sizes and moments of validation, and the same rows and tokens, encoded before the clock
starts.

The clock starts with the command, so imports, the loading and quantising of the backbone, planning and (ours) ranking
and writing checkpoints count. A loss counts from the moment when it is on the disk. The target of a round is the lowest
validation log loss that the baseline reaches, at any step of any trial; the figure is the seconds until it is reached
or undercut (within 1e-5 in fp32, .002 in bf16, for both sides). Beside it stand the seconds of the whole sweeps, since
nobody knows before its end that the best trial was the best; under it what each lever gives, by leaving it out. When a
script that trains one trial after the other meets its best one is luck: the last line has the mean over all orders.

A row alone is never padded, so with `--batch 1` both sides read the same batches, and the losses are held against the
baseline's. `data.batching=packed`, with more rows to a batch, reads them in random order, the baseline in
length-grouped order: losses then differ by the order, and an arm may never reach the target; the table has its own best
and when it was there. `--batching bucketed` gives the baseline's batches there too.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import sides

TRIALS = (2, 6, 12, 24)


def grid_of(options: argparse.Namespace, layers: int) -> dict[str, list[str]]:
    """The axes: a quarter of the blocks adapted or all of them, two ranks, three learning rates, two seeds.

    With `--grid last` it is always a quarter, and there are four ranks.
    """
    quarter, mixed = str(max(1, layers // 4)), options.grid == "mixed"
    axes = {
        "lora.last_k": [quarter, str(layers)] if mixed else [quarter],
        "lora.rank": ["4", "16"] if mixed else ["2", "4", "8", "16"],
        "optimizer.lr": ["1e-4", "3e-4", "1e-3"],
        "seed": ["0", "1"],
    }
    fewer = {24: (), 12: ("seed",), 6: ("seed", "lora.rank"), 2: ("seed", "lora.rank", "optimizer.lr")}[options.trials]
    return {name: values for name, values in axes.items() if name not in fewer}


ON = {"pack": "sweep.pack=auto", "pruner": "pruner=asha", "batching": "data.batching=packed"}
WITHOUT_FLAT = "without flat batches (padded, length-grouped)"
WITHOUT_ANY = "without any of them"
LEFT_OUT = {
    "without packing (and so without a shared prefix)": {"pack": "sweep.pack=1"},
    WITHOUT_FLAT: {"batching": "data.batching=bucketed"},
    "without ASHA": {"pruner": "pruner=none"},
    WITHOUT_ANY: {"pack": "sweep.pack=1", "batching": "data.batching=bucketed", "pruner": "pruner=none"},
}
OWN_ORDER = "without a shared prefix (each trial reads rows in its own order)"
BASELINE, EVERYTHING = "baseline: Trainer, warm process", "everything on"
TARGET = 5.0
SAME = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 2e-3}
"""A loss this much above the target has reached it, on either side: they do not round alike. By compute type."""


@dataclass
class Arm:
    """What its sweeps came to, a figure per round; `reached` is None where the target was not."""

    run: Callable[[Path], sides.Reading]
    same: float
    as_the_baseline: bool = False
    """Whether it reads the baseline's batches."""
    reached: list[float | None] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """Seconds to the lowest loss of its own."""
    total: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    last: sides.Reading | None = None

    def round(self, folder: Path, target: float | None) -> float:
        """Runs it once; returns the target, which the baseline sets."""
        reading = self.last = self.run(folder)
        best = min(reading.losses, key=lambda key: reading.losses[key])
        target = reading.losses[best] if target is None else target
        self.best.append(reading.losses[best])
        self.own.append(reading.seconds[best])
        self.total.append(reading.total)
        self.reached.append(reading.first(target + self.same))
        return target

    @property
    def seconds(self) -> float | None:
        """Median seconds to the target; None if a round did not reach it."""
        known = [one for one in self.reached if one is not None]
        return statistics.median(known) if len(known) == len(self.reached) else None


@dataclass
class Bench:
    """The sweep that all arms run."""

    options: argparse.Namespace
    folder: Path
    common: list[str]
    axes: dict[str, list[str]]

    @property
    def on(self) -> dict[str, str]:
        return {**ON, "batching": f"data.batching={self.options.batching}"}

    @property
    def reduction(self) -> list[str]:
        """Of ASHA's, if it is not to be its own."""
        return [f"pruner.reduction={self.options.reduction}"] if self.options.reduction else []

    def baseline(self, folder: Path) -> sides.Reading:
        log = folder.with_suffix(".jsonl")
        log.unlink(missing_ok=True)
        return sides.run_baseline(self.folder / "task", log, self.options.clock)

    def ours(self, folder: Path, **changed: str) -> sides.Reading:
        settings = {**self.on, **changed}
        more = self.reduction if settings["pruner"] == ON["pruner"] else []
        words = [*self.common, *sides.grid(self.axes), *settings.values(), *more]
        return sides.run_sweep(words, folder, clock=self.options.clock)

    def own_order(self, folder: Path) -> sides.Reading:
        common = [*self.common, *self.on.values(), *self.reduction]
        return own_orders(common, self.axes, folder, self.options.clock)

    def arms(self) -> dict[str, Arm]:
        same = SAME[self.options.compute]
        arms = {BASELINE: Arm(self.baseline, same), EVERYTHING: self._arm({})}
        for name, changed in LEFT_OUT.items() if self.options.ablation else ():
            same_as_on = name == WITHOUT_FLAT and self.options.batching == "bucketed"
            if not same_as_on and not (self.options.quick and name == WITHOUT_ANY):
                arms[name] = self._arm(changed)
        if self.options.ablation:
            arms[OWN_ORDER] = Arm(self.own_order, same)
        return arms

    def _arm(self, changed: dict[str, str]) -> Arm:
        padded = {**self.on, **changed}["batching"] == "data.batching=bucketed"
        return Arm(lambda folder: self.ours(folder, **changed), SAME[self.options.compute], padded)


def own_orders(common: Sequence[str], axes: dict[str, list[str]], folder: Path, clock: str) -> sides.Reading:
    """The cells of a grid, each with an order of its own: packs without anything in common below their adapters."""
    cells = [[*common, *cell, f"data.order_seed={number}"] for number, cell in enumerate(sides.cells(axes))]
    return run_in_order(cells, folder, clock)


def run_in_order(cells: Sequence[list[str]], folder: Path, clock: str) -> sides.Reading:
    """A sweep of these cells, in this order."""
    file = folder.with_name(f"{folder.name}-cells.json")
    file.write_text(json.dumps(cells))
    return sides.run_sweep(["--cells", str(file)], folder, sides.main_of("time_to_best"), clock)


def run_cells(file: Path, folder: Path) -> None:
    """A sweep of cells that are no grid: what the command does once its grid is expanded."""
    from danube_sweep.composer import Composer
    from danube_sweep.sweeping.start_sweep import plan_grid, run_sweep
    from danube_sweep.terminal.screen import Terminal

    with Terminal() as terminal:
        planned = plan_grid(folder, json.loads(file.read_text()), Composer(), terminal)
        assert planned is not None
        run_sweep(planned[0], terminal)


def set_up(options: argparse.Namespace, folder: Path) -> Bench:
    """The model, the rows and the baseline's task: everything before the clock starts."""
    from danube_sweep.composer import Composer

    composer, every = Composer(), max(1, options.steps // options.validations)
    if options.steps % every:
        raise SystemExit(f"--steps must be a multiple of --validations, got {options.steps} and {options.validations}")
    common = [*sides.place(options.device), "head=preference", f"data.max_length={options.max_length}"]
    common += [*sides.data_overrides(options.data, options.rows, folder), *(sides.TINY if options.toy else sides.MID)]
    common += [f"precision={options.precision}", f"precision.compute={options.compute}"]
    common += [f"trainer.{name}_batch={options.batch}" for name in ("micro", "effective")]
    common += [f"trainer.max_steps={options.steps}", f"trainer.validate_every={every}"]
    model = options.model
    if model is None:
        model = folder / "model"
        sides.save_model(composer.trial(common), model)
    common += [f"model.path={model.absolute()}"]
    layers = int(json.loads((model / "config.json").read_text())["num_hidden_layers"])
    axes = grid_of(options, layers)
    sides.write_task(
        # This tool evaluates by tokens (trainer.eval_batch=null), which decides no loss.
        [
            composer.trial([*common, "trainer.eval_batch=8", "data.batching=bucketed", *cell])
            for cell in sides.cells(axes)
        ],
        folder / "task",
    )
    return Bench(options, folder, common, axes)


def over_orders(reading: sides.Reading) -> float:
    """Mean seconds to the lowest loss of trials that were trained one by one, over all orders of them."""
    ends: dict[str, float] = {}
    for (trial, _), seconds in reading.seconds.items():
        ends[trial] = max(seconds, ends.get(trial, 0.0))
    trained = sorted(ends, key=lambda trial: ends[trial])
    took = {later: ends[later] - ends[earlier] for earlier, later in itertools.pairwise(trained)}
    took[trained[0]] = statistics.median(took.values())
    best, step = min(reading.losses, key=lambda key: reading.losses[key])
    before = ends[trained[0]] - took[trained[0]]
    within = reading.seconds[best, step] - (ends[best] - took[best])
    return before + (sum(took.values()) - took[best]) / 2 + within


def ratio(theirs: float | None, ours: float | None) -> str:
    return "      -" if theirs is None or ours is None else f"{theirs / ours:6.2f}x"


def show(arms: dict[str, Arm]) -> None:
    """The table, the headline and its target."""
    base, full = arms[BASELINE], arms[EVERYTHING]
    print(f"\n{'':<66} {'reached s':>9} {'':>7} {'whole s':>8} {'':>7} {'best':>8} {'after s':>8}")
    for name, arm in arms.items():
        seconds = f"{arm.seconds:9.1f}" if arm.seconds is not None else f"{'never':>9}"
        total = statistics.median(arm.total)
        whole = f"{total:8.1f} {ratio(statistics.median(base.total), total)}"
        own = f"{min(arm.best):8.4f} {statistics.median(arm.own):8.1f}"
        print(f"{name:<66} {seconds} {ratio(base.seconds, arm.seconds)} {whole} {own}")
    print(
        "\nwhat each lever gives: seconds without it over seconds with everything on (to the target, the whole sweep)"
    )
    for name, left in list(arms.items())[2:]:
        whole = ratio(statistics.median(left.total), statistics.median(full.total))
        print(f"  {name:<66} {ratio(left.seconds, full.seconds)} {whole}")
    measured = None if base.seconds is None or full.seconds is None else base.seconds / full.seconds
    said = "never" if measured is None else f"{measured:.2f}x"
    print(f"\ntime to the baseline's best, everything on: {said} (target {TARGET:g}x): ", end="")
    print("met" if measured is not None and measured >= TARGET else "missed")
    if base.last is not None:
        mean = over_orders(base.last)
        print(
            f"had its trials another order, the baseline would take {mean:.1f} s on average:{ratio(mean, full.seconds)}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rows: about 8 minutes on one CPU core")
    parser.add_argument("--toy", action="store_true", help="a model of two blocks 64 wide: tries the script out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--clock", choices=sides.CLOCKS, default="wall", help="cpu: where others use the machine too")
    parser.add_argument("--trials", type=int, default=24, choices=TRIALS)
    parser.add_argument("--steps", type=int, help="of a trial: 60, with --quick 20")
    parser.add_argument(
        "--grid", default="mixed", choices=["mixed", "last"], help="last: only the last quarter adapted"
    )
    parser.add_argument("--validations", type=int, default=5, help="of a trial")
    parser.add_argument("--rows", type=int, help="to train on, an eighth as many validate: 300, with --quick 100")
    parser.add_argument("--max-length", type=int, help="tokens of a row: 128, with --quick 64")
    parser.add_argument("--batch", type=int, default=1, help="rows of a step")
    parser.add_argument("--batching", choices=["packed", "bucketed"], help="with everything on; bucketed for --batch 1")
    parser.add_argument("--reduction", type=int, help="of ASHA; 2 keeps the winner more often than its own 3")
    parser.add_argument("--precision", default="nf4")
    parser.add_argument(
        "--compute", default="fp32", help="type of the arithmetic: fp32 lets losses be compared exactly"
    )
    parser.add_argument("--model", type=Path, help="a pretrained folder instead of random weights")
    parser.add_argument("--no-ablation", dest="ablation", action="store_false", help="only the headline")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DANUBE_SWEEP_DATA", "data")))
    parser.add_argument("--keep", type=Path, help="folder for the sweeps; without it they are removed")
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cells is not None:
        run_cells(options.cells, Path(options.rest[0].partition("=")[2]))
        return
    options.steps = options.steps or (20 if options.quick else 60)
    options.batching = options.batching or ("bucketed" if options.batch == 1 else "packed")
    options.rows = options.rows or (100 if options.quick else 300)
    options.max_length = options.max_length or (64 if options.quick else 128)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("DANUBE_SWEEP_CACHE", f"{temporary}/cache")
        run(set_up(options, folder), folder)


def run(bench: Bench, folder: Path) -> None:
    """Every arm once a round, in turn, with a line for each as it ends."""
    arms = bench.arms()
    for number in range(bench.options.rounds):
        target: float | None = None
        for place, (name, arm) in enumerate(arms.items()):
            target = arm.round(folder / f"round-{number}-arm-{place}", target)
            reached = arm.reached[-1]
            said = "never" if reached is None else f"{reached:.1f} s"
            print(f"round {number + 1}: {name}: {said} to {target:.4f}, {arm.total[-1]:.1f} s in all", flush=True)
    show(arms)
    theirs = arms[BASELINE].last
    for name, arm in arms.items():
        if arm.as_the_baseline and arm.last is not None and theirs is not None:
            apart = sides.furthest(arm.last, theirs)
            print(f"{name}: the baseline's batches, validation losses at most {apart:.1e} apart")


if __name__ == "__main__":
    main()
