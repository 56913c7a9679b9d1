"""Writes docs/what-fits.md: the largest micro-batch of every model, method, length and device, by the planner alone.

    python benchmarks/what_fits.py > docs/what-fits.md

No GPU is needed or used: these are predictions.
"""

from dataclasses import replace

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Config
from danube_sweep.errors import UserError
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
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

A cell is the largest micro-batch of full rows, up to 64. The number after the slash is with gradient checkpointing.
`no` means that not even one row fits. `-` means that the device lacks the type, or that the model lacks the positions.
LoRA has rank 16 on all linears and a preference head. QLoRA is nf4 with double quantisation and paged 8-bit AdamW,
computing in the device's 16-bit type.
"""


def main() -> None:
    """Prints the page."""
    composer = Composer()
    print(HEAD)
    print(answers(composer))
    for device, title in DEVICES.items():
        print(f"\n## {title}\n")
        print("| model | method |" + "".join(f" {length} |" for length in LENGTHS))
        print("| --- | --- |" + " --- |" * len(LENGTHS))
        for model in MODELS:
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


def answers(composer: Composer) -> str:
    """The two claims behind this project, checked with the planner."""

    def needs(model: str, method: str, length: int, rows: int, *, checkpointing: bool = False) -> float:
        config = with_micro_batch(
            trial(composer, [f"model={model}", "device=kaggle_t4", *METHODS[method]], length), rows
        )
        config = replace(config, precision=replace(config.precision, gradient_checkpointing=checkpointing))
        fit = fit_of(config, planned_architecture(config.model), planned_device(config.device))
        return fit.memory.total / GIB

    small = [f"{needs('danube3_500m', 'full, fp32', length, 1):.1f}" for length in LENGTHS]
    saved = [f"{needs('danube3_500m', 'full, fp32', length, 1, checkpointing=True):.1f}" for length in LENGTHS]
    deberta = needs("deberta_v3_large", "full, fp32", 512, 8)
    danube = [f"{needs('danube2_1_8b', 'QLoRA', length, 4, checkpointing=True):.1f}" for length in LENGTHS]
    lengths = ", ".join(map(str, LENGTHS))
    return f"""\
## Is a 0.5B model too big for Kaggle unless it is quantised?

This is a common claim. A T4 has 14.7 GiB. A full fp32 fine-tune of Danube3-500m with one row at a time needs:

| GiB at {lengths} tokens | |
| --- | --- |
| without checkpointing | {", ".join(small)} |
| with checkpointing | {", ".join(saved)} |

The weights take only 1.7 GiB, and weights, gradients and states together 6.9 GiB. The activations of long rows make
the claim true, and checkpointing makes it false. LoRA over fp16 weights needs no quantisation either, up to the lengths
in the tables.

## Danube2 with QLoRA instead of DeBERTa-large on a Kaggle GPU

A full fp32 fine-tune of DeBERTa-v3-large with 8 rows of 512 tokens needs {deberta:.1f} GiB. Danube2-1.8b as QLoRA with
checkpointing and 4 rows needs {", ".join(danube)} GiB at {lengths} tokens. It fits. A sweep decides whether it is
better."""


if __name__ == "__main__":
    main()
