"""Packs on a GPU: every trial trains as it would alone, and the pack takes the memory that was planned."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from rich.console import Console

from danube_sweep.composer import compose
from danube_sweep.config.facts.architectures import architecture_of
from danube_sweep.config.schema import Config
from danube_sweep.planner.memory import pack_memory
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_pack
from danube_sweep.training.setup import Entrant

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

DIFFERENT = [
    ["lora.rank=4"],
    ["lora.rank=16", "optimizer=sgd", "optimizer.lr=0.05", "seed=1"],
    ["lora.rank=8", "lora.targets=qv", "optimizer=adamw_8bit", "head=sequence"],
    ["lora.rank=8", "lora.last_k=1", "lora.dropout=0.2", "data.order_seed=2"],
]


class Closed:
    """A door that nobody enters."""

    def next(self) -> None:
        return None

    def dismisses(self, _entrant: Entrant) -> None:
        return None

    def left(self, _entrant: Entrant, error: BaseException | None) -> None:
        if error is not None:
            raise error


def train(configs: list[Config], folder: Path) -> list[Path]:
    """Trains them as one pack; returns their folders."""
    terminal = Terminal(Console(file=io.StringIO()), plain=True)
    entrants = [Entrant(config, folder / str(number), terminal) for number, config in enumerate(configs)]
    run_pack(entrants, Closed())
    return [entrant.path for entrant in entrants]


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return [float(row["loss"] or row["log_loss"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize(
    ("precision", "within"),
    [
        (["precision=fp32"], 1e-4),
        (["precision=nf4", "precision.compute=fp32"], 1e-3),
        (["precision=nf4", "precision.compute=bf16"], 3e-2),
        (["precision=nf4", "precision.compute=fp16"], 3e-2),
        (["precision=int8"], 5e-2),
        (["precision=bf16", "precision.gradient_checkpointing=true"], 3e-2),
        (["precision=bf16", "data.batching=packed"], 3e-2),
    ],
    ids=["fp32", "nf4-fp32", "nf4-bf16", "nf4-fp16", "int8", "bf16-checkpointing", "bf16-flat"],
)
def test_a_trial_follows_its_losses_alone(
    tiny: Callable[..., Config], tmp_path: Path, precision: list[str], within: float
) -> None:
    common = [
        *precision,
        "device=auto",
        "device.types=[fp32,bf16,fp16]",
        "trainer.max_steps=8",
        "trainer.validate_every=4",
    ]
    configs = [tiny(*common, "trainer.log_every=1", "schedule=constant", *own) for own in DIFFERENT]
    together = train(configs, tmp_path / "pack")
    for number, config in enumerate(configs):
        (alone,) = train([config], tmp_path / f"alone-{number}")
        assert losses(together[number]) == pytest.approx(losses(alone), abs=within)


PACKS = [
    "danube3_500m 8 precision=nf4 trainer.micro_batch=1 data.max_length=128",
    "danube3_500m 4 precision=nf4 trainer.micro_batch=4 data.max_length=512",
    "danube3_500m 4 precision=bf16 trainer.micro_batch=1 data.max_length=1024",
    "danube3_500m 8 precision=nf4 trainer.micro_batch=2 data.max_length=512 lora.last_k=4",
    "danube3_500m 4 precision=nf4 trainer.micro_batch=4 data.max_length=512 precision.gradient_checkpointing=true",
    "danube3_4b 4 precision=nf4 trainer.micro_batch=1 data.max_length=512",
    "danube3_4b 8 precision=nf4_dq trainer.micro_batch=1 data.max_length=256 lora.last_k=6",
]
"""Model, trials, overrides."""


@pytest.mark.parametrize("setting", PACKS)
def test_the_planned_peak_of_a_pack_is_the_measured_one(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, count, *overrides = setting.split()
    file, random = tmp_path / "rows.csv", Random(0)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(500)]
    lines = [f"{' '.join(random.choices(words, k=1100))},{'xyz'[number % 3]}\n" for number in range(48)]
    file.write_text("text,label\n" + "".join(lines))
    common = [f"model={model}", "model.init=random", "device=auto", "tracking=none", *overrides]
    common += ["head=sequence", "data=table", f"data.path={file}", "trainer.effective_batch=4"]
    common += ["trainer.max_steps=2", "trainer.validate_every=2", "schedule=constant", "schedule.warmup=0"]
    configs = [compose([*common, f"seed={seed}"]) for seed in range(int(count))]
    planned = pack_memory(configs, architecture_of(configs[0].model.shape)).peak
    first, *_ = train(configs, tmp_path / "pack")
    measured = json.loads((first / "result.json").read_text())["measured"]["peak_memory_bytes"]
    with capsys.disabled():
        print(f"\n{setting}: {measured / 2**30:.3f} GiB measured, {planned / 2**30:.3f} planned", file=sys.stderr)
    assert measured == pytest.approx(planned, rel=0.1)
