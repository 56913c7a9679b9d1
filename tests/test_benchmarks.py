"""The toy forms of the benchmarks of packs: they run to their tables, and the baseline is a fair one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY, compose
from runs import metrics, train

sys.path.insert(0, str(ROOT / "benchmarks"))

import baseline_hf
import early_stopping
import null_analysis
import packing
import sides
import time_to_best

from danube_sweep.config.identity import trial_hash

SHORT = ["data.rows=60", "trainer.micro_batch=4", "trainer.effective_batch=4"]
SHORT += ["trainer.max_steps=8", "trainer.validate_every=4"]


@pytest.mark.parametrize(
    "changed",
    [
        ["precision=nf4", "precision.compute=fp32", "lora.last_k=1", "schedule=linear", "optimizer.weight_decay=0.1"],
        ["precision=fp32", "lora=none", "head=sequence"],
    ],
)
def test_the_baseline_reaches_the_losses_of_this_tool(changed: list[str], tmp_path: Path) -> None:
    common = [*TINY, *SHORT, *changed, "optimizer.lr=1e-2"]
    sides.save_model(compose(common), tmp_path / "model")
    configs = [compose([*common, f"model.path={tmp_path / 'model'}", f"seed={seed}"]) for seed in (0, 1)]
    sides.write_task(configs, tmp_path / "task")
    baseline_hf.train_all(*baseline_hf.read_task(tmp_path / "task"), tmp_path / "log")
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for config in configs:
        theirs = [row["log_loss"] for row in rows if row["trial"] == trial_hash(config) and "step" in row]
        folder = tmp_path / str(config.seed)
        train(config, folder)
        ours = [float(row["log_loss"]) for row in metrics(folder, "validation")]
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert abs(ours[0] - ours[1]) > 1e-4, "it did not train"


def test_replays_of_early_stopping_count_winners_and_steps() -> None:
    clear = [[1.0 + trial / 10 - reading / 100 for reading in range(8)] for trial in range(12)]
    kept, share, lost = early_stopping.measured(early_stopping.ours(early_stopping.Asha()), [clear], 2, 1)
    assert (kept, lost) == (1.0, 0.0) and 0.25 < share < 0.45
    whole = early_stopping.ours(early_stopping.Asha(reduction=100), worth=-1.0)
    assert early_stopping.measured(whole, [early_stopping.synthetic(1)], 1, 3)[:2] == (1.0, 1.0)
    assert early_stopping.optunas_asha(1, 3)(clear, 1)[1] < 1.0


def test_sweeps_drawn_from_readings_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    losses_TN = generator.normal(1.0, 0.2, size=(60, 80)).astype(np.float16)
    np.savez(tmp_path / "null.npz", losses_TN=losses_TN, group_N=np.arange(80) // 2)
    null_analysis.main([str(tmp_path / "null.npz"), "--sweeps", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"60 trials, log loss {losses_TN.mean(dtype=np.float64):.4f}")
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:]] == ["null"] * 2 + ["0.02"] * 2 + ["0.05"] * 2 + [
        "0.1"
    ] * 2


@pytest.mark.full
def test_packing_prints_a_line_for_every_size_and_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    toy = ["--shapes", "toy", "--precisions", "nf4"]
    packing.main([*toy, "--quick", "--rounds", "1", "--turn-s", "0", "--only", "steps,prefix,cache"])
    said = capsys.readouterr().out
    assert said.count("toy   nf4       32") >= 2
    assert "last 1" in said and "head" in said
    assert said.count("target: at ") == 5


@pytest.mark.full
def test_time_to_best_prints_its_table_and_the_losses_are_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    toy = ["--toy", "--trials", "2", "--steps", "4", "--validations", "2", "--rows", "60", "--max-length", "64"]
    time_to_best.main([*toy, "--batching", "bucketed", "--no-ablation", "--compute", "fp32", "--data", str(tmp_path)])
    said = capsys.readouterr().out
    assert "time to the baseline's best, everything on:" in said
    apart = float(said.rpartition("validation losses at most ")[2].split()[0])
    assert apart < 1e-5
