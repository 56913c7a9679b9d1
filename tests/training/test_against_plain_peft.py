"""A run trains and predicts as a plain loop over transformers and PEFT does; benchmarks/real_model.py, tiny."""

import csv
import sys
from pathlib import Path

import pytest
from conftest import ROOT, tiny_config
from workbench import save_base

sys.path.insert(0, str(ROOT / "benchmarks"))

import real_model


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_losses_and_probabilities_are_those_of_transformers_and_peft(precision: str, tmp_path: Path) -> None:
    base, rows = tmp_path / "base", tmp_path / "rows.csv"
    save_base(tiny_config(), base)
    with rows.open("w", newline="") as stream:
        texts = [[str(n), f"query {n} {'again ' * (n % 9)}", "abc"[n % 3]] for n in range(48)]
        csv.writer(stream).writerows([["id", "text", "label"], *texts])
    config = tiny_config(
        *(f"model.path={base}", "head=sequence", "data=table", f"data.path={rows}", "trainer.log_every=1"),
        *("trainer.max_steps=10", "trainer.validate_every=10", "trainer.micro_batch=4", "trainer.effective_batch=4"),
        *("optimizer.lr=3e-3", f"precision={precision}", "precision.compute=fp32"),
    )
    found = real_model.compare(config, tmp_path / "run", rows, 20)
    assert max(found.losses.values()) < real_model.LOSS_TOLERANCE
    assert max(found.probabilities.values()) < real_model.PROBABILITY_TOLERANCE
    assert not any(found.answers.values()) and abs(found.first_and_last[0] - found.first_and_last[1]) > 0.05
