"""The planner against runs that others measured on T4s (fitcheck-llm 0.3, MIT), as a table for docs/memory.md.

    python benchmarks/published_t4.py FOLDER

FOLDER holds t4_measured.csv and models/*/config.json. The runs follow Hugging Face's recipe with k-bit preparation and
PEFT's fp32 adapters, which danube_sweep does not. `recipe_peak` adds what that recipe keeps, by bytes that were set
with all runs in view. What it moves, the T4's efficiencies and the allocator's slack are fitted: every row is predicted
by a fit that has not seen its model.
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danube_sweep.composer import Composer
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.schema import Config, Device
from danube_sweep.planner.memory import Memory, memory_of
from danube_sweep.planner.planned_architecture import described_architecture, planned_architecture
from danube_sweep.planner.step_seconds import Work, work_of

MIB = 2**20
FOLDERS = {
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen25_15b",
    "HuggingFaceTB/SmolLM2-1.7B": "smol17",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "tinyllama",
}
OPTIONS = {"HuggingFaceTB/SmolLM2-135M": "smollm2_135m", "HuggingFaceTB/SmolLM2-360M": "smollm2_360m"}
WORDS = ["model=danube_tiny", "head=lm", "data=text", "data.path=[x]", "device=kaggle_t4", "lora.rank=32"]
WORDS += ["lora.targets=attention", "precision.gradient_checkpointing=true"]
LOGITS_KEPT = {False: 2, True: 4}
"""Bytes a logit that the recipe keeps beside ours: the 16-bit ones, or with k-bit preparation the fp32 ones."""
SCORES_KEPT = {False: 16, True: 19}
"""Bytes a score of eager attention while a block is live."""
BLOCK_KEPT = {False: 20, True: 36}
"""Bytes a token and hidden unit beside the scores."""
SECONDS_WITHIN, MEMORY_WITHIN = 0.3, 0.1


@dataclass(frozen=True)
class Row:
    """A measured run, and what the planner says of its config."""

    model: str
    storage: str
    eager: bool
    rows: int
    length: int
    seconds: float
    process_mib: float
    slack_mib: float
    peak_mib: float
    """With what the recipe keeps besides."""
    work: Work
    inputs_mib: float
    scores_mib: float
    """Of that peak: the blocks' checkpointed inputs, and a block's scores."""
    scores: float
    logits: float
    hidden: float
    """Numbers of a step, all blocks counted."""

    @property
    def prepared(self) -> bool:
        """Whether k-bit preparation made fp32 of what is not quantised."""
        return self.storage == "nf4"


def read(folder: Path) -> list[Row]:
    """The measured runs, each with its plan."""
    compose = Composer().trial
    with (folder / "t4_measured.csv").open() as file:
        return [_row(line, folder, compose) for line in csv.DictReader(file)]


def _row(line: dict[str, str], folder: Path, compose: Callable[[Sequence[str]], Config]) -> Row:
    rows, length, storage = (
        int(line["micro_batch"]),
        int(line["seq_len"]),
        "nf4" if line["quantization"] == "nf4" else "fp16",
    )
    batch = [f"trainer.micro_batch={rows}", f"trainer.effective_batch={rows}", f"data.max_length={length}"]
    config = compose([*WORDS, *batch, f"precision={storage}"])
    model = _architecture(line["model"], folder, compose)
    tokens, eager = rows * length, line["attention"] == "eager"
    scores = float(eager * model.heads * tokens * length)
    peak = recipe_peak(memory_of(config, model), model, tokens, prepared=storage == "nf4", scores=scores)
    return Row(
        line["model"].split("/")[1],
        storage,
        eager,
        rows,
        length,
        float(line["step_s"]),
        float(line["process_mib"]),
        float(line["peak_reserved_mib"]) - float(line["peak_allocated_mib"]),
        peak / MIB,
        work_of(config, model, tokens_per_row=length),
        checkpointed(model, tokens, prepared=storage == "nf4") / MIB,
        SCORES_KEPT[storage == "nf4"] * scores / MIB,
        scores * model.layers,
        model.vocab * tokens,
        model.layers * model.hidden * tokens,
    )


def _architecture(name: str, folder: Path, compose: Callable[[Sequence[str]], Config]) -> Architecture:
    if name in OPTIONS:
        return planned_architecture(compose([f"model={OPTIONS[name]}"]).model)
    return described_architecture(json.loads((folder / "models" / FOLDERS[name] / "config.json").read_text()))


def recipe_peak(memory: Memory, model: Architecture, tokens: int, *, prepared: bool, scores: float) -> float:
    """The peak of Hugging Face's recipe: it copies logits, and with preparation has fp32 where we keep 16 bits."""
    fixed = memory.weights + memory.trained + memory.gradients + memory.optimizer
    fixed += 2 * model.embedding * (1 if model.tied else 2) * prepared
    at_the_end = model.vocab * tokens * (12 + LOGITS_KEPT[prepared])
    in_a_block = SCORES_KEPT[prepared] * scores + BLOCK_KEPT[prepared] * model.hidden * tokens if scores else 0.0
    return fixed + checkpointed(model, tokens, prepared=prepared) + max(at_the_end, in_a_block)


def checkpointed(model: Architecture, tokens: int, *, prepared: bool) -> float:
    """Bytes of the inputs that the blocks keep."""
    return (4.0 if prepared else 2.0) * model.layers * model.hidden * tokens


@dataclass(frozen=True)
class Fit:
    """What is fitted: shares of the T4's rate, bytes that the recipe moves besides, and the allocator's slack."""

    seconds: np.ndarray
    slack: np.ndarray
    launch_s: float

    @property
    def efficiency(self) -> float:
        """Of matrix products."""
        return float(1 / self.seconds[0])

    @property
    def attention_efficiency(self) -> float:
        """Of fused attention."""
        return float(1 / self.seconds[1])


def fit(rows: Sequence[Row], t4: Device) -> Fit:
    """The numbers, none below 0, with the least sum of relative errors: the same run was measured 25 % apart.

    Runs that wait for the host fit the launch time, the others the rest.
    """
    busy = [row for row in rows if not _waits_for_host(row, t4)]
    waiting = [row.seconds / row.work.launches for row in rows if _waits_for_host(row, t4)]
    whole, moving = (
        np.array([one(row) for row in busy]) for one in (lambda row: row.seconds, lambda row: _moving(row, t4))
    )
    process = np.array([row.process_mib for row in rows])
    return Fit(
        _positive([_asked(row, t4) for row in busy], whole - moving, whole),
        _positive([_held(row) for row in rows], np.array([row.slack_mib for row in rows]), process),
        float(np.mean(waiting)) if waiting else t4.launch_us * 1e-6,
    )


def _positive(features: list[list[float]], wanted: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # A linear programme: the sum of the errors' sizes is bounded from both sides and made small.
    from scipy.optimize import linprog

    known, given = np.array(features) / whole[:, None], wanted / whole
    rows, unknown = known.shape
    bounds = np.block([[known, -np.eye(rows)], [-known, -np.eye(rows)]])
    cost = np.concatenate([np.zeros(unknown), np.ones(rows)])
    return np.asarray(linprog(cost, A_ub=bounds, b_ub=np.concatenate([given, -given])).x[:unknown])


def _waits_for_host(row: Row, t4: Device) -> bool:
    return row.work.seconds(t4, in_fp32=False) <= row.work.launches * t4.launch_us * 1e-6


def _moving(row: Row, t4: Device) -> float:
    work = row.work
    return (work.moved + work.dequantised * work.dequantised_bytes) / (t4.bandwidth_gb_s * 1e9)


def _asked(row: Row, t4: Device) -> list[float]:
    # Seconds at the full rate: of products, fused attention, and bytes a score, a prepared logit, a prepared residual.
    rate, bandwidth = t4.tflops_16bit * 1e12, t4.bandwidth_gb_s * 1e9
    moved = (row.scores, row.prepared * row.logits, row.prepared * row.hidden)
    return [
        row.work.products / rate,
        0.0 if row.eager else row.work.attention / rate,
        *(one / bandwidth for one in moved),
    ]


def _held(row: Row) -> list[float]:
    # MiB in proportion to which the allocator holds more than it uses: the peak, checkpoints, and eager scores.
    return [row.peak_mib, row.inputs_mib * (not row.prepared), row.inputs_mib * row.prepared, row.scores_mib]


def predicted(row: Row, fitted: Fit, t4: Device) -> tuple[float, float]:
    """Seconds of a step, and MiB of the process."""
    seconds = float(np.dot(_asked(row, t4), fitted.seconds)) + _moving(row, t4)
    slack = float(np.dot(_held(row), fitted.slack))
    return max(seconds, row.work.launches * fitted.launch_s), row.peak_mib + slack + t4.context_gib * 1024


def left_out(rows: Sequence[Row], t4: Device) -> list[tuple[Row, float, float]]:
    """Every run with its ratios of predicted to measured seconds and memory, by a fit to the other models' runs."""
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        fitted = fit([row for row in rows if row.model != model], t4)
        for row in (one for one in rows if one.model == model):
            seconds, mib = predicted(row, fitted, t4)
            found.append((row, seconds / row.seconds, mib / row.process_mib))
    return found


def within(ratios: Sequence[float], share: float) -> float:
    """The share of ratios that are no further from 1."""
    return sum(abs(ratio - 1) <= share for ratio in ratios) / len(ratios)


def table(rows: Sequence[Row], t4: Device) -> str:
    """The table of docs/memory.md, and what it comes to."""
    found, fitted = left_out(rows, t4), fit(rows, t4)
    lines = [
        "| model | weights, attention | rows x tokens | s/step: predicted, published, ratio "
        "| MiB: predicted, published, ratio |"
    ]
    lines.append("| --- | --- | --- | --- | --- |")
    for row, seconds, memory in found:
        of_time = f"{seconds * row.seconds:.2f}, {row.seconds:.2f}, {seconds:.2f}"
        of_memory = f"{memory * row.process_mib:,.0f}, {row.process_mib:,.0f}, {memory:.2f}"
        kind = f"{row.storage}, {'eager' if row.eager else 'sdpa'}"
        lines.append(f"| {row.model} | {kind} | {row.rows} x {row.length} | {of_time} | {of_memory} |")
    times, memories = [one[1] for one in found], [one[2] for one in found]
    lines += [
        "",
        f"Of the {len(rows)} runs, {_percent(within(times, SECONDS_WITHIN))} are within {_percent(SECONDS_WITHIN)} in "
        f"seconds and {_percent(within(memories, MEMORY_WITHIN))} within {_percent(MEMORY_WITHIN)} in memory. "
        f"The fit to all runs gives {fitted.efficiency:.2f} of the rate for products, "
        f"{fitted.attention_efficiency:.2f} for fused attention, and "
        f"{fitted.launch_s * 1e6:.0f} µs per launch.",
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    folder, *_ = sys.argv[1:] if arguments is None else arguments
    print(table(read(Path(folder)), planned_t4()))


def planned_t4() -> Device:
    """The T4 of the table of devices."""
    return Composer().trial(["device=kaggle_t4"]).device


if __name__ == "__main__":
    main()
