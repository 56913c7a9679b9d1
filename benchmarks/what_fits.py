"""Writes docs/what-fits.md: the largest micro-batch of every model, method, length and device, by the planner alone.

    python benchmarks/what_fits.py > docs/what-fits.md

No GPU is needed or used: these are predictions.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.errors import UserError
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.what_fits import fit_of, largest_micro_batch, with_micro_batch

DEVICES = {
    "kaggle_t4": "T4 (14.7 GiB)",
    "kaggle_p100": "P100 (15.9 GiB; planned only)",
    "rtx4090": "RTX 4090 (23.6 GiB)",
    "h200": "H200 (139.8 GiB)",
}
MODELS = [
    "danube3_500m", "danube_1_8b", "danube2_1_8b", "danube3_4b", "danube3_1_4b",
    "deberta_v3_base", "deberta_v3_large", "qwen2_0_5b", "phi3_mini", "mistral_7b", "gemma_7b", "gemma2_9b",
]  # fmt: skip
METHODS = {
    "full, fp32": ["lora=full", "precision=fp32", "optimizer=adamw"],
    "full, bf16, 8-bit states": ["lora=full", "precision=bf16", "optimizer=adamw_8bit"],
    "LoRA, fp16": ["lora=lora", "precision=fp16", "optimizer=adamw"],
    "QLoRA": ["lora=lora", "precision=nf4_dq", "optimizer=paged_adamw_8bit"],
}
LENGTHS = (512, 1024, 2048, 4096)
MOST_ROWS = 64
REFUSED, NOTHING = "-", "no"

HEAD = """\
# Tables of micro-batches

This page is written by `python benchmarks/what_fits.py > docs/what-fits.md`, from configs alone. Every number is a
prediction of the planner with its margins ([memory](memory.md)). None of these trials was run on these devices.
[What fits my GPU](what-fits-my-gpu.md) shows how to plan your own trial.
"""
LEGEND = """
## How to read the tables

A cell is the largest micro-batch of full rows, up to 64. The number after the slash is with gradient checkpointing.
`no` means that not even one row fits. `-` means that the device lacks the type, or that the model lacks the positions.
LoRA has rank 16 on all linears and a preference head. QLoRA is nf4 with double quantisation and paged 8-bit AdamW,
computing in the device's 16-bit type."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the page; with names of models, only their rows."""
    models = (sys.argv[1:] if arguments is None else arguments) or MODELS
    composer = Composer()
    print(HEAD)
    print(answers(composer))
    print(LEGEND)
    for device, title in DEVICES.items():
        print(f"\n## {title}\n")
        print("| model | method |" + "".join(f" {length} |" for length in LENGTHS))
        print("| --- | --- |" + " --- |" * len(LENGTHS))
        for model in models:
            for method, overrides in METHODS.items():
                words = [f"model={model}", f"device={device}", *overrides]
                cells = [cell(composer, words, length) for length in LENGTHS]
                print(f"| {model} | {method} | " + " | ".join(cells) + " |")


def trial(composer: Composer, words: list[str], length: int) -> Config:
    """The trial of a cell. Raises ConfigError where there is none."""
    rows = [f"trainer.effective_batch={MOST_ROWS}", "trainer.micro_batch=1"]
    return composer.trial([*words, *rows, f"data.max_length={length}"])


def cell(composer: Composer, words: list[str], length: int) -> str:
    """The largest micro-batches of a trial, as the table prints them."""
    try:
        config = trial(composer, words, length)
    except UserError:
        return REFUSED
    plain, saving = most_rows(config, checkpointing=False), most_rows(config, checkpointing=True)
    return NOTHING if saving is None else f"{plain or NOTHING} / {saving}"


def most_rows(config: Config, *, checkpointing: bool) -> int | None:
    """The largest micro-batch that fits."""
    precision = replace(config.precision, gradient_checkpointing=checkpointing)
    config = replace(config, precision=precision)
    return largest_micro_batch(config, planned_architecture(config.model), planned_device(config.device))


ANSWERS = {
    "Danube3-500m, full fine-tune, fp32 weights, fp16 arithmetic": (
        ["model=danube3_500m", "lora=full", "precision=fp32", "precision.compute=fp16"], 1024, 4
    ),
    "Danube3-500m, LoRA over fp16 weights": (["model=danube3_500m", *METHODS["LoRA, fp16"]], 1024, 4),
    "Danube2-1.8b, QLoRA": (["model=danube2_1_8b", *METHODS["QLoRA"]], 1024, 4),
    "DeBERTa-v3-large, full fine-tune, fp32 weights, fp16 arithmetic": (
        ["model=deberta_v3_large", "lora=full", "precision=fp32", "precision.compute=fp16"], 512, 8
    ),
}  # fmt: skip
"""Settings that people ask about: overrides, tokens of a row, rows of a forward pass. All with checkpointing."""
COMPETITION_ROWS = 57_477
"""Training rows of LMSYS - Chatbot Arena Human Preference Predictions."""


def answers(composer: Composer) -> str:
    """The questions behind this project, each answered first, and the table that the answers are read from."""
    lines, said = [], {}
    for title, (words, length, rows) in ANSWERS.items():
        config = with_micro_batch(trial(composer, ["device=kaggle_t4", *words], length), rows)
        config = replace(config, precision=replace(config.precision, gradient_checkpointing=True))
        model, device = planned_architecture(config.model), planned_device(config.device)
        fit = fit_of(config, model, device)
        step_s = seconds_of(config, model, device, tokens_per_row=length).step
        hours = COMPETITION_ROWS / MOST_ROWS * step_s / 3600
        lines.append(f"| {title} | {rows} x {length} | {fit.memory.total / GIB:.1f} | {fit.verdict} | {hours:.1f} |")
        said[title] = f"{'Yes' if fit.fits else 'No'}: {fit.memory.total / GIB:.1f} GiB, in {hours:.1f} hours an epoch"
    small, lora, danube, deberta = said.values()
    table = "\n".join(lines)
    return f"""\
## Can a 0.5B model be trained on a Kaggle T4 without quantising it?

{small}, with every weight trained. {lora}, with LoRA.

## Can Danube2-1.8b with QLoRA replace DeBERTa-v3-large there?

{danube}. Does DeBERTa-v3-large fit in a usual setting? {deberta}.
A sweep decides which is better.

## The settings behind these answers

A T4 has 14.7 GiB. An epoch has the {COMPETITION_ROWS:,} training rows of the competition, in steps of {MOST_ROWS} rows.
Every row is as long as the limit, so an epoch of real rows takes less by prediction. danube_sweep's steps were never
timed on a T4 ([against published runs](memory.md#against-published-runs)). All settings use gradient checkpointing.

| setting | rows x tokens | GiB | verdict | hours an epoch |
| --- | --- | --- | --- | --- |
{table}"""


if __name__ == "__main__":
    main()
