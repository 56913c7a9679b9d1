"""What the benchmarks of packs share: a sweep's trials as a task of the baseline, and both sides run and watched."""

import argparse
import csv
import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from baseline_hf import Task, Trial
from readings import CLOCKS as CLOCKS
from readings import Log, Reading, replay

from danube_sweep.data.encoded import save

TARGETS = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
    "qv": ["q_proj", "v_proj"],
}
TARGETS["all_linear"] = TARGETS["attention"] + TARGETS["mlp"]
SCHEDULES = {"Cosine": "cosine", "Linear": "linear", "Constant": "constant_with_warmup"}
CLOSE = 1e-4
"""How far apart a validation loss of the two sides may be where both compute in fp32."""


def write_task(configs: Sequence[Any], folder: Path) -> None:
    """Writes what the baseline needs to train these trials: rows, settings, and the trials under their hashes."""
    from danube_sweep.training.prepare import prepare

    first = configs[0]
    prepared = prepare(first)
    folder.mkdir(parents=True, exist_ok=True)
    for part in prepared.parts:
        save(prepared.parts[part], folder / f"{part}.npz")
    described = {
        "task": asdict(task_of(first, prepared.pad_id, len(prepared.classes))),
        "trials": [asdict(trial_of(config)) for config in configs],
    }
    (folder / "task.json").write_text(json.dumps(described, indent=1))


def task_of(config: Any, pad_id: int, classes: int) -> Task:
    """What a trial has in common with the others of its sweep."""
    trainer = config.trainer
    if trainer.micro_batch != trainer.effective_batch or not trainer.max_steps or not trainer.validate_every:
        raise SystemExit("the baseline wants trainer.micro_batch=effective_batch, max_steps and validate_every")
    return Task(
        model=config.model.path,
        storage=config.precision.storage.value,
        compute=config.precision.compute.value,
        double_quant=config.precision.double_quant,
        pooling=config.head.pooling.value,
        classes=classes,
        pad_id=pad_id,
        batch=trainer.effective_batch,
        eval_batch=trainer.eval_batch or trainer.micro_batch,
        bucketed=config.data.batching.value == "bucketed",
        steps=trainer.max_steps,
        validate_every=trainer.validate_every,
        clip_norm=trainer.clip_norm or 0.0,
        device="cpu" if config.device.accelerator == "cpu" else "cuda:0",
    )


def trial_of(config: Any) -> Trial:
    """What a trial is."""
    from danube_sweep.config.identity import trial_hash
    from danube_sweep.config.schema import NoAdapter

    lora, alone, steps = config.lora, isinstance(config.lora, NoAdapter), config.trainer.max_steps
    return Trial(
        name=trial_hash(config),
        order_seed=config.order_seed,
        seed=config.seed,
        rank=0 if alone else lora.rank,
        alpha=0.0 if alone else lora.used_alpha,
        targets=[] if alone else TARGETS[lora.targets],
        last_k=None if alone else lora.last_k,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        schedule=SCHEDULES[type(config.schedule).__name__],
        warmup_steps=min(round(config.schedule.warmup * steps), steps - 1),
        label_smoothing=config.head.label_smoothing,
    )


def cells(axes: dict[str, list[str]]) -> list[list[str]]:
    """The overrides of every cell of a grid, in the order of a multirun: the last axis varies fastest."""
    return [
        [f"{name}={one}" for name, one in zip(axes, values, strict=True)]
        for values in itertools.product(*axes.values())
    ]


def grid(axes: dict[str, list[str]]) -> list[str]:
    """The same as the overrides of a multirun."""
    return [f"{name}={','.join(values)}" for name, values in axes.items()]


def save_model(config: Any, folder: Path) -> None:
    """A model of the config's shape with random weights, and its tokenizer: what `model.path` and both sides load."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from danube_sweep.model.backbone import architecture
    from danube_sweep.training.prepare import prepare

    logging.disable_progress_bar()
    torch.manual_seed(config.model.init_seed)
    with torch.device("cpu" if config.device.accelerator == "cpu" else "cuda"):
        drawn = AutoModelForCausalLM.from_config(architecture(config.model), dtype=torch.float32)
    drawn = drawn.bfloat16() if drawn.num_parameters() > 3e8 else drawn  # of a large one, half the disk
    drawn.save_pretrained(folder)
    prepare(config).tokenizer.save_pretrained(folder)


def run_baseline(folder: Path, log: Path, clock: str = "wall") -> Reading:
    """Runs the baseline over the task in `folder`, in a process of its own, imports included.

    Trials that `log` has already are not trained again.
    """
    known = Log(log)
    known.append("launch", time.time(), 0.0)
    command = [sys.executable, *main_of("baseline_hf"), "--task", str(folder), "--log", str(log)]
    done = subprocess.run(
        command, env=quiet_environment(), capture_output=True, text=True, preexec_fn=dies_with(signal.SIGTERM)
    )
    if done.returncode:
        raise SystemExit(f"the baseline ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    courses = known.courses(clock)
    return replay(known.start_up(clock), courses, list(courses))


def main_of(name: str) -> list[str]:
    """The words for Python that run the `main` of a script beside this one."""
    place = str(Path(__file__).resolve().parent)
    return ["-c", f"import sys; sys.path.insert(0, {place!r}); import {name} as script; script.main()"]


def dies_with(number: int) -> Callable[[], None]:
    """To be called in a child: it gets this signal when its parent has died, so that nothing outlives a benchmark."""

    def ask() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG

    return ask


def tree_cpu_s(pid: int) -> float:
    """Processor seconds of a process, its descendants, and those that they have waited for; 0 if it is gone."""
    found = 0.0
    try:
        root = psutil.Process(pid)
        for one in (root, *root.children(recursive=True)):
            times = one.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    except psutil.NoSuchProcess:
        return 0.0
    return found


def quiet_environment() -> dict[str, str]:
    """This process's environment, with compiled modules kept: compiling at each start would flatter a sweep."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Watch:
    """Reads a sweep folder while it grows: when was which validation there?"""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[Path, int] = {}
        self.reading = Reading()

    def look(self, now: float) -> None:
        """Notes what is new, a tenth of a millisecond for a file that is not."""
        for file in self._folder.glob("[0-9]*/metrics.csv"):
            size = file.stat().st_size
            if size == self._sizes.get(file):
                continue
            self._sizes[file] = size
            identity = json.loads((file.parent / "trial.json").read_text())["hash"]
            whole = file.read_text().rpartition("\n")[0]
            for row in csv.DictReader(whole.splitlines()):
                key = identity, int(row["step"])
                if row["part"] == "validation" and key not in self.reading.losses:
                    self.reading.add(*key, float(row["log_loss"]), now)


def run_sweep(
    arguments: Sequence[str],
    folder: Path,
    command: Sequence[str] = ("-m", "danube_sweep", "-m"),
    clock: str = "wall",
) -> Reading:
    """Runs `danube-sweep -m ARGUMENTS…` into `folder`, imports included, and looks into it five times a second."""
    start, spent = time.time(), 0.0
    watch = Watch(folder)
    with tempfile.TemporaryFile("w+") as said:
        whole = [sys.executable, *command, *arguments, f"hydra.sweep.dir={folder}"]
        process = subprocess.Popen(
            whole, env=quiet_environment(), stdout=said, stderr=said, text=True, preexec_fn=dies_with(signal.SIGTERM)
        )
        try:
            while process.poll() is None:
                # A descendant that ends between two looks is counted by its parent from the second on.
                spent = max(spent, tree_cpu_s(process.pid))
                watch.look(spent if clock == "cpu" else time.time() - start)
                time.sleep(0.2)
        finally:
            process.terminate()
        watch.reading.total = spent if clock == "cpu" else time.time() - start
        watch.look(watch.reading.total)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"the sweep ended with exit code {process.returncode}:\n{said.read()[-3000:]}")
    return watch.reading


def furthest(ours: Reading, theirs: Reading) -> float:
    """The largest difference between two validation losses of the same trial at the same step."""
    both = ours.losses.keys() & theirs.losses.keys()
    if not both:
        raise SystemExit("the two sides have no validation in common")
    return max(abs(ours.losses[key] - theirs.losses[key]) for key in both)


@dataclass
class Verdicts:
    """Targets, what was measured against them, and whether more is better."""

    found: dict[tuple[str, float, bool], list[float]] = field(default_factory=dict)

    def least(self, what: str, measured: float, target: float) -> None:
        self.found.setdefault((what, target, True), []).append(measured)

    def most(self, what: str, measured: float, target: float) -> None:
        self.found.setdefault((what, target, False), []).append(measured)

    def show(self) -> None:
        print("\nover all rows, the worst one counts")
        for (what, target, least), values in self.found.items():
            low, high = min(values), max(values)
            met = low >= target if least else high <= target
            spread = f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f} in {len(values)} rows"
            wanted = f"target: at {'least' if least else 'most'} {target:g}"
            print(f"  {what:<62} {spread:<26} {wanted}: {'met' if met else 'missed'}")


def data_overrides(data: Path, rows: int, folder: Path) -> list[str]:
    """The arena's first rows if they are there, an eighth as many of other prompts to validate; else generated ones.

    They are written into `folder`: a benchmark spends its time on training.
    """
    arena = data / "arena_human.csv"
    if not arena.is_file():
        return [f"data.rows={rows}"]
    csv.field_size_limit(2**30)
    with arena.open(newline="") as stream:
        found = sorted(csv.DictReader(stream), key=lambda row: row["prompt"])
    train = found[:rows]
    others = [row for row in found[rows:] if row["prompt"] != train[-1]["prompt"]]
    for name, part in (("train", train), ("validation", others[: max(8, rows // 8)])):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(part[0]))
            writer.writeheader()
            writer.writerows(part)
    return ["data=arena", f"data.path={folder / 'train.csv'}", f"data.validation_path={folder / 'validation.csv'}"]


def shape(**sizes: int) -> list[str]:
    """Overrides for a model's shape."""
    return [f"model.shape.{name}={value}" for name, value in sizes.items()]


TINY = shape(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, vocab_size=512)
TINY += shape(num_key_value_heads=1, head_dim=32)
MID = shape(hidden_size=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8, vocab_size=8000)
MID += shape(num_key_value_heads=4, head_dim=96)


def place(device: str) -> list[str]:
    """Overrides that say where both sides run. With device=auto a machine without a GPU would take its CPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no GPU here; leave --device out to measure on the CPU")
    return ["tracking=none", *(["device=cpu", "device.threads=1"] if device == "cpu" else ["device=auto"])]


def side_by_side(options: argparse.Namespace, folder: Path) -> None:
    """Trains the same trials by both, and prints losses and seconds."""
    from danube_sweep.composer import Composer

    composer = Composer()
    precisions = {"fp32": ["precision=fp32"], "nf4": ["precision=nf4", "precision.compute=fp32"]}
    fixed = [
        *place(options.device),
        *(TINY if options.quick else MID),
        *data_overrides(options.data, options.rows, folder),
    ]
    fixed += [f"data.max_length={options.max_length}", f"trainer.max_steps={options.steps}"]
    fixed += [f"trainer.{name}_batch={options.batch}" for name in ("micro", "effective")]
    fixed += [f"trainer.validate_every={max(1, options.steps // 4)}"]
    save_model(composer.trial(fixed), folder / "model")
    axes = {"lora.rank": ["4", "16"], "optimizer.lr": ["5e-4", "2e-3"]}
    print(f"{'':<18} {'ours s':>8} {'Trainer s':>10}   largest difference of a validation loss")
    for name, precision in precisions.items():
        common = [*fixed, *precision, f"model.path={folder / 'model'}"]
        configs = [composer.trial([*common, *cell]) for cell in cells(axes)]
        write_task(configs, folder / name)
        theirs = run_baseline(folder / name, folder / f"{name}.jsonl")
        ours = run_sweep([*common, *grid(axes)], folder / f"{name}-sweep")
        apart, limit = furthest(ours, theirs), CLOSE
        verdict = "the same" if apart <= limit else f"NOT the same: over {limit:g}"
        seconds = f"{ours.total:8.1f} {theirs.total:10.1f}"
        print(f"{name + ', fp32 compute':<18} {seconds}   {apart:.2e} {verdict}", flush=True)
