"""Danube3-500m's true shape with random weights on a GPU, a few steps for every way to store and to compute."""

import csv
import gc
import io
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from danube_sweep.composer import compose
from danube_sweep.config.schema import Config
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.device import native_types
from danube_sweep.training.run import run_trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

STEPS = 8

TRUE_SHAPE = [
    "model=danube3_500m",
    "model.init=random",
    "data=generated",
    "data.rows=200",
    "data.max_length=256",
    "schedule=constant",
    "trainer.micro_batch=4",
    "trainer.effective_batch=8",
    f"trainer.max_steps={STEPS}",
    f"trainer.validate_every={STEPS // 2}",
    "trainer.log_every=1",
    "tracking=none",
]

TRIALS = {
    "nf4": ["precision=nf4", "optimizer=adamw"],
    "nf4-fp16": ["precision=nf4", "precision.compute=fp16", "optimizer=adamw"],
    "nf4-fp16-schedulefree": ["precision=nf4", "precision.compute=fp16", "optimizer=schedulefree"],
    "nf4_dq-paged": ["precision=nf4_dq", "optimizer=paged_adamw_8bit", "precision.gradient_checkpointing=true"],
    "int8": ["precision=int8", "optimizer=adamw_8bit"],
    "int8-fp16": ["precision=int8", "precision.compute=fp16", "optimizer=adamw"],
    "fp16": ["precision=fp16", "optimizer=adamw"],
    "bf16-dora": ["precision=bf16", "lora=dora", "optimizer=adamw"],
    "bf16-head-only": ["precision=bf16", "lora=none", "optimizer=adamw"],
    "nf4-words": ["precision=nf4", "head=causal", "head.words=[A,B,tie]", "optimizer=paged_adamw_8bit"],
    "fp16-full": ["precision.storage=fp32", "precision.compute=fp16", "lora=full", "optimizer=paged_adamw_8bit"],
}


@pytest.fixture(autouse=True)
def own_memory() -> Iterator[None]:
    """A peak of each test's own."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    gc.collect()
    torch.cuda.empty_cache()


def composed(overrides: list[str]) -> Config:
    """The trial on the GPU; skips where the GPU does not have its compute type."""
    has = native_types(torch.device("cuda", 0))
    config = compose([*overrides, "device=cuda", "device.types=[fp32,bf16,fp16]"])
    if config.precision.compute.value not in has:
        pytest.skip(f"this GPU has no native {config.precision.compute.value}")
    return config


def run(config: Config, folder: Path) -> tuple[dict[str, Any], list[float]]:
    """The result of a trial and the loss of each of its steps."""
    result = run_trial(config, folder, Terminal(Console(file=io.StringIO()), plain=True))
    with (folder / "metrics.csv").open(newline="") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream) if row["part"] == "train"]
    return result, losses


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_of_true_shape_trains(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, losses = run(composed([*TRUE_SHAPE, *TRIALS[name], "optimizer.lr=2e-5"]), tmp_path / "run")
    measured = result["measured"]
    with capsys.disabled():
        memory = measured["peak_memory_bytes"] / 2**30
        speed = f"{measured['tokens_per_s']:,.0f} tokens/s"
        print(f"\n{name:16} {memory:6.2f} GiB  {speed:>18}  loss {losses[0]:.4f} -> {losses[-1]:.4f}", file=sys.stderr)
    assert result["state"] == "finished" and result["steps"] == STEPS == len(losses)
    assert all(map(math.isfinite, losses)) and math.isfinite(result["validation"]["log_loss"])
    # Two batches at the end against two at the start: falling, or not rising beyond the batches' own spread.
    assert sum(losses[-2:]) / 2 < sum(losses[:2]) / 2 + 0.3
    assert 0 < measured["peak_memory_bytes"] < torch.cuda.get_device_properties(0).total_memory
    assert measured["device"]["kind"] == "cuda"


def test_four_bits_take_less_memory_than_sixteen(tmp_path: Path) -> None:
    peaks = []
    for name in ("nf4_dq", "int8", "bf16"):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        options = [f"precision={name}", "lora=none", "trainer.micro_batch=1", "data.max_length=64"]
        result, _ = run(composed([*TRUE_SHAPE, *options]), tmp_path / name)
        peaks.append(result["measured"]["peak_memory_bytes"])
    assert peaks[0] < peaks[1] < peaks[2]


@pytest.mark.parametrize("adapter", ["lora=lora", "lora=none"])
def test_a_gpu_follows_the_losses_of_a_cpu_in_fp32(tiny: Callable[..., Config], tmp_path: Path, adapter: str) -> None:
    options = ["precision=fp32", adapter, f"trainer.max_steps={STEPS}"]
    _, on_cpu = run(tiny(*options), tmp_path / "cpu")
    _, on_gpu = run(tiny(*options, "device=cuda"), tmp_path / "gpu")
    assert on_gpu == pytest.approx(on_cpu, abs=1e-3)


@pytest.mark.parametrize("name", ["nf4", "nf4-fp16", "nf4-fp16-schedulefree", "nf4_dq-paged", "int8"])
def test_an_interrupted_trial_goes_on_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    from danube_sweep.errors import Interrupted
    from danube_sweep.training.signals import StopRequest

    config = composed([*TRUE_SHAPE, *TRIALS[name]])
    stop = StopRequest()
    stop.signal_number = 2  # asked for before the first step: it takes one and stops at its border
    with pytest.raises(Interrupted):
        run_trial(config, tmp_path / "run", Terminal(Console(file=io.StringIO()), plain=True), stop=stop)
    result, losses = run(config, tmp_path / "run")
    _, undisturbed = run(config, tmp_path / "undisturbed")
    assert result["state"] == "finished" and len(losses) == STEPS
    assert losses == pytest.approx(undisturbed, abs=0.05)  # a GPU's sums are not in a fixed order
