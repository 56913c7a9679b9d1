"""Many trials over one backbone, step by step: a pack against three named baselines, in alternation.

    python benchmarks/packing.py [--quick] [--device cuda] [--shapes mid] [--only steps,prefix,cache,memory,processes]

(a) plain transformers + PEFT + bitsandbytes, the trials one after the other in a warm process;
(b) one process per trial (of the baseline's own script, benchmarks/baseline_hf.py);
(c) this engine at N = 1, the trials one after the other.

A pack of N runs through `run_pack`, the path of every sweep. Each arm is a process of its own, forked from one that has
imported everything; it trains to a border, waits there, and trains on when it is told, so that the arms of a row take
turns every half a second and a disturbance of the machine meets them all. Warm-up steps come first; a figure is the
median over the rounds; a ratio is (baseline's seconds of a step, for N trials) over (the pack's seconds of a step).
Backbones have random weights; rows have exactly the tokens given; all trials read the same rows, as in a sweep.

`auto` is the size of the pack that `sweep.pack=auto` would form of the largest N of a row, and what that gives: for a
trial on its own it is (c). GiB is the peak of the arm's process; a forked one has none of the
libraries' pages that it does not touch, so the planner's prediction is held against the peak of fresh processes.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for a spawned child

import sides
from arms import Arm, Build, child, pack_arm, plain_arm
from sides import Verdicts

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.sweeping.execute.process_pool import WARM

WARM_UP = 3
NEVER = 1_000_000
SHAPES = {
    "toy": sides.TINY,
    "tiny": sides.shape(
        hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2
    )
    + sides.shape(head_dim=64, vocab_size=2048),
    "mid": sides.MID,
    "500m": sides.shape(
        hidden_size=1536, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=8
    )
    + sides.shape(head_dim=96, vocab_size=32000),
    "4b": sides.shape(
        hidden_size=3840, intermediate_size=10240, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=8
    )
    + sides.shape(head_dim=120, vocab_size=32000),
}
GIB = 2**30
LAYERS = {"toy": 2, "tiny": 4, "mid": 8, "500m": 16, "4b": 24}


@dataclass(frozen=True)
class Row:
    """Arms that take turns: the baselines, and a pack of each size."""

    shape: str
    precision: str
    rows: int
    length: int
    sizes: tuple[int, ...]
    adapter: tuple[str, ...] = ("lora.rank=16",)
    name: str = ""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def title(self) -> str:
        return f"{self.shape:<5} {self.precision:<5} {self.tokens:>6} {self.name}"


QUICK = [
    Row("toy", "nf4", 1, 32, (2,)),
    Row("tiny", "nf4", 1, 32, (8,)),
    Row("mid", "nf4", 1, 16, (8,)),
    Row("mid", "nf4", 1, 32, (4, 8, 16)),
    Row("mid", "nf4", 1, 128, (4, 8)),
    Row("mid", "nf4", 4, 128, (4,)),
    Row("mid", "fp32", 1, 128, (8,)),
    Row("mid", "bf16", 1, 128, (8,)),
    Row("500m", "nf4", 1, 32, (4,)),
]
SIZES = {"toy": (4,), "tiny": (4, 8, 16), "mid": (2, 4, 8, 16), "500m": (4, 8), "4b": (4,)}
MIXED = ("mixed",)
"""Instead of an adapter: ranks from 4 to 64."""


MEMORY = [
    *(("toy", "fp32", 128, 4), ("tiny", "nf4", 128, 8), ("mid", "fp32", 128, 8), ("mid", "bf16", 512, 4)),
    *(("mid", "nf4", 128, 8), ("500m", "nf4", 128, 4), ("4b", "nf4", 512, 4)),
]
"""Shape, precision, tokens, trials."""


def rows_of(options: argparse.Namespace) -> list[Row]:
    """The rows of the table: `--quick` has those with a target and a few beside them."""
    if options.device == "cuda":
        sizes = [(batch, length) for length in (128, 512, 2048) for batch in (1, 4, 8)]
        found = [Row(shape, "nf4", *size, (4, 8)) for shape in SIZES for size in sizes]
        found = [row for row in found if not options.quick or row.tokens in (128, 512, 2048, 4096)]
    elif options.quick:
        found = QUICK
    else:
        small = [shape for shape in SIZES if shape not in ("500m", "4b")]
        found = [
            Row(shape, precision, *size, SIZES[shape])
            for shape in small
            for precision in ("fp32", "bf16", "nf4")
            for size in ((1, 16), (1, 32), (1, 128), (4, 128))
        ]
        found += [Row("mid", "nf4", 1, 32, (8,), MIXED, "r 4-64")]
        found += [Row(shape, "nf4", 1, length, SIZES[shape]) for shape in ("500m", "4b") for length in (32, 128)]
    return [row for row in found if row.shape in options.shapes and row.precision in options.precisions]


@dataclass
class Bench:
    """What the rows share: the options, a folder, and a composer that has read the YAML once."""

    options: argparse.Namespace
    folder: Path
    composer: Composer = field(default_factory=Composer)
    arms: int = 0

    def start(self, name: str, build: Build, configs: Sequence[Config], *, fresh: bool = False) -> Arm:
        """A new process that has done its warm-up steps; a `fresh` one has imported everything itself."""
        (arm,) = self.start_all({name: (build, configs)}, fresh=fresh)
        return arm

    def start_all(self, asked: dict[str, tuple[Build, Sequence[Config]]], *, fresh: bool = False) -> list[Arm]:
        """As `start`, all at once: they load and warm up at the same time."""
        arms = [self._launch(name, *what, fresh=fresh) for name, what in asked.items()]
        for arm in arms:
            arm.answer()
        for arm in arms:
            arm.turn = max(1, min(50, math.ceil(self.options.turn_s / arm.run(1))))
        return arms

    def _launch(self, name: str, build: Build, configs: Sequence[Config], *, fresh: bool) -> Arm:
        # A GPU's arms come of a parent that has imported what leaves the GPU alone.
        forked = "fork" if self.options.device == "cpu" else "forkserver"
        context: Any = get_context("spawn" if fresh else forked)
        ours, theirs = context.Pipe()
        self.arms += 1
        process = context.Process(
            target=child,
            args=(build, configs, self.folder / f"arm-{self.arms}", theirs, self.options.clock, WARM_UP),
            daemon=True,
        )
        process.start()
        theirs.close()
        return Arm(name, process, ours, len(configs))

    def trials(self, row: Row, count: int, *more: str) -> list[Config]:
        """`count` trials that differ as those of a sweep do."""
        base = self.common(row)
        mixed = row.adapter == MIXED
        found = []
        for number in range(count):
            adapter = (f"lora.rank={(4, 8, 16, 64)[number % 4]}",) if mixed else row.adapter
            varied = [f"seed={number // 4}", f"optimizer.lr={1e-3 * 1.3 ** (number % 4):.3e}"]
            found.append(self.composer.trial([*base, *adapter, *varied, *more]))
        return found

    def common(self, row: Row) -> list[str]:
        """What all trials of a row have in common."""
        model = self.folder / row.shape
        data = self.data(row)
        common = [*sides.place(self.options.device), *SHAPES[row.shape], *data, *self.precision(row.precision)]
        if not model.is_dir():
            self._save(common, model)
        return [*common, f"model.path={model}"]

    def precision(self, name: str) -> list[str]:
        compute = self.options.nf4_compute
        return [f"precision={name}", *([f"precision.compute={compute}"] if name == "nf4" and compute else [])]

    def data(self, row: Row, texts: int = 64) -> list[str]:
        """Rows of exactly `length` tokens, and a run that never ends or validates."""
        file = self.folder / "rows.csv"
        if not file.is_file():
            random = Random(0)
            words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(500)]
            lines = [f"{' '.join(random.choices(words, k=2100))},{'xyz'[number % 3]}\n" for number in range(texts)]
            file.write_text("text,label\n" + "".join(lines))
        return [
            *("head=sequence", "data=table", f"data.path={file}", f"data.max_length={row.length}"),
            *(f"trainer.{name}_batch={row.rows}" for name in ("micro", "effective")),
            *(f"trainer.{name}={NEVER}" for name in ("max_steps", "validate_every")),
            *("schedule=constant", "schedule.warmup=0"),
        ]

    def _save(self, overrides: list[str], folder: Path) -> None:
        # In a process of its own: what this one has held, its forks would count as theirs.
        context: Any = get_context("fork" if self.options.device == "cpu" else "spawn")
        process = context.Process(target=sides.save_model, args=(self.composer.trial(overrides), folder))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"the model of {folder.name} could not be saved")

    def rounds(self, arms: Sequence[Arm]) -> None:
        """Lets the arms take turns."""
        for _ in range(self.options.rounds):
            for arm in arms:
                arm.seconds.append(arm.run(arm.turn))


# ------------------------------------------------------------------------------------------------------------ the table


def predicted_bytes(configs: Sequence[Config]) -> float:
    """The planner's word on a pack's peak."""
    from danube_sweep.planner.memory import pack_memory
    from danube_sweep.planner.planned_architecture import planned_architecture

    memory = pack_memory(configs, planned_architecture(configs[0].model))
    return memory.total if configs[0].device.accelerator == "cpu" else memory.peak


def auto_size(configs: Sequence[Config]) -> int:
    """How many of the trials `sweep.pack=auto` puts into the first pack."""
    from danube_sweep.planner.pack_plan import choose_pack

    return len(choose_pack(configs, most=len(configs)).trials)


def fits(*packs: Sequence[Config]) -> bool:
    """Whether packs and both baselines, which stay where they are while they wait, fit the device by prediction."""
    from danube_sweep.planner.planned_device import capacity_bytes, planned_device

    first = packs[0]
    capacity = capacity_bytes(planned_device(first[0].device))
    return capacity is None or sum(map(predicted_bytes, packs)) + 2 * predicted_bytes(first[:1]) < capacity


def measure(bench: Bench, row: Row, verdicts: Verdicts) -> None:
    """A line of the table for each size of pack."""
    auto = auto_size(bench.trials(row, max(row.sizes)))
    sizes = [size for size in sorted({*row.sizes, auto} - {1}) if fits(bench.trials(row, size))]
    while sizes and not fits(*(bench.trials(row, size) for size in sizes)):
        sizes.pop(0)
    if not sizes:
        print(f"{row.title:<26} {max(row.sizes):>3}      would not fit", flush=True)
        return
    asked = {"(a)": (plain_arm, bench.trials(row, 1)), "(c)": (pack_arm, bench.trials(row, 1))}
    asked |= {f"a pack of {size}": (pack_arm, bench.trials(row, size)) for size in sizes}
    plain, alone, *others = bench.start_all(asked)
    packs = dict(zip(sizes, others, strict=True))
    bench.rounds([plain, alone, *packs.values()])
    plain.end()
    peaks = {size: arm.end() for size, arm in {1: alone, **packs}.items()}
    for size, arm in {1: alone, **packs}.items():
        mark = "auto" if size == auto else ""
        line(row, f"{size:>3} {mark:<4}", plain, alone, arm, peaks[size])
        if size >= 4 and row.precision == "nf4" and row.tokens <= 32:
            verdicts.least("over (a), nf4, at most 32 tokens, N >= 4", plain.each / arm.each, 2.0)
        if size >= 4 and row.precision == "nf4" and row.tokens == 128:
            verdicts.least("over (a), nf4, 128 tokens, N >= 4", plain.each / arm.each, 1.2)
    if (chosen := {1: alone, **packs}.get(auto)) is None:
        print(f"{'':<26} sweep.pack=auto packs {auto}: not measured, as it does not fit beside the others", flush=True)
        return
    verdicts.least("sweep.pack=auto over (a)", plain.each / chosen.each, 0.95)
    verdicts.least("sweep.pack=auto over (c)", alone.each / chosen.each, 0.95)


def line(row: Row, size: str, plain: Arm | None, alone: Arm, arm: Arm, peak: int) -> None:
    """Prints milliseconds of a step for one trial, the ratios, the speed, and the spread of the pack's rounds."""
    theirs = f"{plain.each * 1e3:8.1f}" if plain else " " * 8
    over = f"{plain.each / arm.each:6.2f}x" if plain else " " * 7
    spread = f"{min(arm.seconds) / arm.trials * 1e3:.1f}-{max(arm.seconds) / arm.trials * 1e3:.1f}"
    figures = f"{theirs} {alone.each * 1e3:8.1f} {arm.each * 1e3:8.1f}  {over} {alone.each / arm.each:6.2f}x"
    print(f"{row.title:<26} {size} {figures} {row.tokens / arm.each:9.0f} {peak / GIB:5.2f}  {spread}", flush=True)


def memory(bench: Bench, verdicts: Verdicts) -> None:
    """The peak of a pack in a fresh process against its prediction."""
    print("\npeak memory of a pack in a fresh process, GiB: measured, predicted, measured over predicted")
    for shape, precision, length, size in MEMORY:
        row = Row(shape, precision, 1, length, (size,))
        configs = bench.trials(row, size)
        if shape not in bench.options.shapes or not fits(configs):
            continue
        measured = bench.start("a pack", pack_arm, configs, fresh=True).end()
        predicted = predicted_bytes(configs)
        share = measured / predicted
        print(f"{row.title:<26} {size:>3} {measured / GIB:8.2f} {predicted / GIB:8.2f} {share:8.2f}", flush=True)
        verdicts.most("peak memory: distance from the prediction, as a share of it", abs(share - 1), 0.1)


def prefix(bench: Bench, verdicts: Verdicts, shape: str, size: int = 8) -> None:
    """Adapters in the last quarter of the blocks: those below run once for all trials."""
    k = max(1, LAYERS[shape] // 4)
    for precision in sorted(bench.options.precisions & {"fp32", "nf4"}):
        row = Row(shape, precision, 1, 128, (size,), ("lora.rank=16", f"lora.last_k={k}"), f"last {k}")
        one = bench.trials(row, 1)
        plain, alone, pack = bench.start_all(
            {"(a)": (plain_arm, one), "(c)": (pack_arm, one), "the pack": (pack_arm, bench.trials(row, size))}
        )
        bench.rounds([plain, alone, pack])
        plain.end(), alone.end()
        line(row, f"{size:>3}     ", plain, alone, pack, pack.end())
        verdicts.least(f"over (a), shared prefix, last quarter adapted, N = {size}", plain.each / pack.each, 2.0)


def cache(bench: Bench, verdicts: Verdicts, shape: str, size: int = 8) -> None:
    """Heads alone. The first step writes the states of all rows to the disk: every later one is as of a later epoch."""
    for precision in sorted(bench.options.precisions & {"fp32", "nf4"}):
        row = Row(shape, precision, 1, 128, (size,), ("lora=none",), "head")
        alone = bench.start("(c)", pack_arm, bench.trials(row, 1))
        for count in (1, size):
            pack = bench.start("with the cache", pack_arm, bench.trials(row, count, "data.cache_prefix=true"))
            alone.seconds.clear()
            bench.rounds([alone, pack])
            line(row, f"{count:>3} disk", None, alone, pack, pack.end())
            verdicts.least(f"over (c), head alone, states from the disk, N = {count}", alone.each / pack.each, 3.0)
        alone.end()


def processes(bench: Bench, shape: str, size: int = 8, steps: int = 50) -> None:
    """Baseline (b) against a whole sweep in one pack: start-up, rows, one validation and all."""
    row = Row(shape, "nf4", 1, 32, (size,))
    replaced = [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}"]
    (config,) = bench.trials(row, 1, *replaced)
    common = [*bench.common(row), *row.adapter, *replaced]
    sides.write_task([config], bench.folder / "alone")
    theirs, ours, clock = list[float](), list[float](), bench.options.clock
    for number in range(max(1, bench.options.rounds // 4)):
        log = bench.folder / f"alone-{number}.jsonl"
        theirs.append(sides.run_baseline(bench.folder / "alone", log, clock).total * size)
        lrs = ",".join(f"{1e-3 * 1.3**place:.3e}" for place in range(size))
        sweep = [*common, f"optimizer.lr={lrs}", "sweep.pack=auto"]
        ours.append(sides.run_sweep(sweep, bench.folder / f"sweep-{number}", clock=clock).total)
    one, other = statistics.median(ours), statistics.median(theirs)
    print(f"\n(b) {size} trials of {steps} steps, {row.title.strip()} tokens, start-up included: {other:.1f} s")
    print(f"    in a process each (one run, times {size}), {one:.1f} s as one sweep: {other / one:.2f}x", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the rows with a target and a few more: about 8 minutes")
    parser.add_argument("--rounds", type=int, help="turns of every arm; 7, with --quick 4")
    parser.add_argument("--turn-s", type=float, default=0.5, help="seconds of an arm's turn, at least a step")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others use the machine too"
    )
    parser.add_argument("--shapes", default="tiny,mid,500m", help="of toy, tiny, mid, 500m, 4b")
    parser.add_argument("--precisions", default="fp32,bf16,nf4")
    parser.add_argument("--only", default="steps,prefix,cache,memory,processes", help="parts of the benchmark")
    parser.add_argument(
        "--nf4-compute", choices=["fp32", "bf16", "fp16"], help="what nf4 computes in; else its default"
    )
    options = parser.parse_args(arguments)
    for name in ("shapes", "precisions", "only"):
        setattr(options, name, set(getattr(options, name).split(",")))
    options.rounds = options.rounds or (4 if options.quick else 7)
    shape = next((name for name in ("mid", *SHAPES) if name in options.shapes), "mid")
    verdicts = Verdicts()
    if options.device == "cpu":
        import danube_sweep.training.run  # noqa: F401  (what the arms are forked with)
    else:
        forkserver.set_forkserver_preload(WARM)

    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault("DANUBE_SWEEP_CACHE", f"{temporary}/cache")
        bench = Bench(options, Path(temporary))
        columns = f"{'(a)':>8} {'(c)':>8} {'pack':>8}  {'over a':>7} {'over c':>7} {'tokens/s':>9}   GiB"
        print(f"{'ms of a step, a trial':<26} {'  N':<8} {columns}  rounds")
        if "steps" in options.only:
            for row in rows_of(options):
                measure(bench, row, verdicts)
        if "prefix" in options.only:
            prefix(bench, verdicts, shape)
        if "cache" in options.only:
            cache(bench, verdicts, shape)
        if "memory" in options.only:
            memory(bench, verdicts)
        if "processes" in options.only:
            processes(bench, shape)
    verdicts.show()


if __name__ == "__main__":
    main()
