"""The planner against runs that others measured: benchmarks/published_t4.py, every model predicted from the others."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, compose

from danube_sweep.config.schema import Device
from danube_sweep.planner.planned_architecture import described_architecture
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.planner.what_fits import Fit, fit_of

sys.path.insert(0, str(ROOT / "benchmarks"))
import published_t4

LLAMA_2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
ON_A100 = [("bf16", 1, 21.30, 2.36), ("bf16", 2, 29.07, 2.52), ("nf4", 1, 14.14, 3.68), ("nf4_dq", 1, 13.84, 3.83)]
"""LitGPT's tutorials/resource-tables.md (commit 4839345): LoRA of rank 8 on queries and values, rows of up to 1,304
tokens, on an A100 40GB. Storage, rows of a micro-batch, GB at the peak, minutes for 1,000 micro-batches."""


def on_a100(storage: str, rows: int) -> tuple[Fit, float]:
    """The fit, and the seconds of a micro-batch of usual rows, for which 128 tokens are assumed."""
    batch = [f"trainer.micro_batch={rows}", f"trainer.effective_batch={rows}", "data.max_length=1304"]
    adapter = ["head=lm", "data=text", "data.path=[x]", "lora.rank=8", "lora.targets=qv"]
    config = compose(["device=a100_40gb", "model=danube_tiny", *adapter, *batch, f"precision={storage}"])
    model = described_architecture(LLAMA_2_7B)
    return fit_of(config, model, config.device), seconds_of(config, model, config.device, tokens_per_row=128).step


@pytest.mark.parametrize(("storage", "rows", "peak_gb", "minutes"), ON_A100)
def test_an_a100_needs_what_litgpt_measured_on_one(storage: str, rows: int, peak_gb: float, minutes: float) -> None:
    """Seconds within a factor of two; memory within an eighth in 16 bits. LitGPT's 4-bit runs took a third more."""
    fit, seconds = on_a100(storage, rows)
    assert 0.5 < seconds / (minutes * 60 / 1000) < 2
    assert (0.87 if storage == "bf16" else 0.7) < fit.memory.peak / (peak_gb * 1e9) < 1.13


def test_what_ran_out_of_memory_on_an_a100_is_not_said_to_fit() -> None:
    """Predicted at 98 % of the card: litgpt could not train it."""
    fit, _ = on_a100("bf16", 4)
    assert fit.verdict == "tight" and fit.share is not None and 0.9 < fit.share < 1


MAKERS = {
    "kaggle_t4": 65, "kaggle_t4x2": 65, "kaggle_p100": 18.7, "v100": 125, "l4": 121, "l40s": 362, "a10g": 70,
    "rtx3090": 71, "rtx4090": 165.2, "rtx5090": 209.5, "a100_40gb": 312, "a100_80gb": 312, "h100": 989.4,
    "h100_pcie": 756, "h200": 989.4, "mi300x": 1307.4, "mps": 13.6,
}  # fmt: skip
"""Dense 16-bit TFLOP/s with fp32 sums, of the data sheets (of an M2 Max for mps)."""


def test_a_large_step_takes_what_the_makers_rate_allows() -> None:
    """Four operations for each weight and token (the weights have no gradients), at 40 % of the maker's rate."""
    batch = ["trainer.micro_batch=16", "trainer.effective_batch=16", "data.max_length=1024"]
    config = compose(["model=danube3_4b", "precision=fp16", "head=sequence", "data=table", "data.path=x", *batch])
    options = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "device").glob("*.yaml")}
    assert options.keys() == MAKERS.keys() | {"auto", "cpu", "cuda"}
    for option, rate in MAKERS.items():
        described = {name: value for name, value in options[option].items() if name != "defaults"}
        planned = plan_of(replace(config, device=Device(**described)))
        seconds = 4 * planned.parameters * 16 * 1024 / (0.4 * rate * 1e12)
        assert 0.5 < planned.step_s / seconds < 2, option


@pytest.fixture(scope="module")
def measured() -> list[published_t4.Row]:
    folder = ROOT.parent / "shared" / "published"
    if not (folder / "t4_measured.csv").is_file():
        pytest.skip("the published T4 runs are not here: shared/published/t4_measured.csv beside the checkout")
    return published_t4.read(folder)


@pytest.fixture(scope="module")
def ratios(measured: list[published_t4.Row]) -> list[tuple[published_t4.Row, float, float]]:
    return published_t4.left_out(measured, compose(["device=kaggle_t4"]).device)


def test_a_models_steps_are_predicted_from_other_models_runs(
    ratios: list[tuple[published_t4.Row, float, float]],
) -> None:
    assert published_t4.within([seconds for _, seconds, _ in ratios], 0.3) >= 0.8


def test_a_models_process_memory_is_predicted_from_other_models_runs(
    ratios: list[tuple[published_t4.Row, float, float]],
) -> None:
    assert published_t4.within([memory for _, _, memory in ratios], 0.1) >= 0.9


def test_the_t4_of_the_table_has_what_was_fitted(measured: list[published_t4.Row]) -> None:
    t4 = compose(["device=kaggle_t4"]).device
    fitted = published_t4.fit(measured, t4)
    assert t4.efficiency == pytest.approx(fitted.efficiency, abs=0.01)
    assert t4.attention_efficiency == pytest.approx(fitted.attention_efficiency, abs=0.01)
    assert t4.launch_us == pytest.approx(fitted.launch_s * 1e6, abs=1)


def test_the_document_shows_the_table_that_the_command_prints(measured: list[published_t4.Row]) -> None:
    text = Path(ROOT, "docs", "memory.md").read_text(encoding="utf-8")
    assert published_t4.table(measured, compose(["device=kaggle_t4"]).device) in text
