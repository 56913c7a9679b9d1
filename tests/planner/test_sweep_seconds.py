"""The time of a sweep: that of its packs, added by hand."""

from dataclasses import replace

import pytest
from conftest import compose

from danube_sweep.cli import main
from danube_sweep.config.schema import Config
from danube_sweep.planner.pack_plan import PlannedPack, full_rows
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.sweep_seconds import steps_of, sweep_seconds


@pytest.fixture(scope="module")
def trial() -> Config:
    return compose(["device=h200", "trainer.epochs=1.5", "trainer.effective_batch=16"])


def test_steps_are_those_of_whole_batches(trial: Config) -> None:
    assert steps_of(trial, 100) == 11  # 1.5 epochs of 7 steps
    assert steps_of(trial, None) is None
    for given, rows, steps in (
        ({"max_steps": 3}, None, 3),
        ({"stop_after": 4}, 100, 4),
        ({"max_steps": 8, "stop_after": 4}, None, 4),
    ):
        assert steps_of(replace(trial, trainer=replace(trial.trainer, **given)), rows) == steps


def test_a_sweep_takes_the_time_of_its_packs_over_its_slots(trial: Config) -> None:
    packs = [PlannedPack((0, 1), "", step_s=2.0), PlannedPack((2,), "alone")]
    alone_s = seconds_of(
        trial, planned_architecture(trial.model), planned_device(trial.device), tokens_per_row=1024
    ).step
    assert full_rows(trial).mean == 1024

    def total(slots: int | None, rows: int | None = 100) -> float | None:
        return sweep_seconds([trial] * 3, packs, rows=lambda _: rows, lengths=full_rows, slots=slots)

    assert total(None) == pytest.approx(11 * (2.0 + alone_s)) and total(2) == pytest.approx(11 * (2.0 + alone_s) / 2)
    assert total(9) == total(2) and total(None, rows=None) is None


def test_a_plan_quotes_no_epoch_of_demo_data_that_nobody_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["plan", "device=h200"]) == 0
    assert "an epoch is unknown" in " ".join(capsys.readouterr().out.split())
    assert main.main(["plan", "device=h200", "data=generated", "data.rows=80"]) == 0
    assert "an epoch of 64 rows" in " ".join(capsys.readouterr().out.split())
    assert main.main(["plan", "-m", "device=h200", "data=generated", "seed=0,1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "p1: 2 trials: " in shown and "1 run of packs and single trials: about " in shown
