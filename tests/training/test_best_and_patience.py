"""The best step by the objective's sign, and the patience that waits for a better one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import losses, train

from danube_sweep.config.schema import Config
from danube_sweep.training.best_and_patience import BestSoFar

Tiny = Callable[..., Config]


def after(values: list[float], objective: str) -> BestSoFar:
    best = BestSoFar()
    for number, value in enumerate(values, 1):
        best.take(10 * number, {objective: value, "another": -number}, objective)
    return best


@pytest.mark.parametrize(("objective", "best_step"), [("log_loss", 20), ("accuracy", 30), ("mse", 20)])
def test_the_best_step_is_the_lowest_or_the_highest_as_the_objective_wants_it(objective: str, best_step: int) -> None:
    best = after([0.5, 0.1, 0.9, 0.4], objective)
    assert (best.best_step, best.validations) == (best_step, 4)
    assert best.validations_since_best == 4 - best_step // 10


def test_of_equal_validations_the_earliest_is_the_best() -> None:
    best = after([0.5, 0.3, 0.3, 0.3], "log_loss")
    assert (best.best_step, best.validations_since_best) == (20, 2)


def test_taking_a_validation_tells_whether_it_is_the_best() -> None:
    best = BestSoFar()
    assert [best.take(step, {"log_loss": loss}, "log_loss") for step, loss in enumerate([3.0, 2.0, 2.5, 1.0])] == [
        True,
        True,
        False,
        True,
    ]


def test_before_any_validation_there_is_no_best_step_and_patience_is_whole() -> None:
    assert BestSoFar().best_step is None
    assert not BestSoFar().is_out_of_patience(1)


@pytest.mark.parametrize(("patience", "out"), [(None, False), (4, False), (3, True), (2, True)])
def test_patience_is_out_after_as_many_validations_without_a_better_one(patience: int | None, out: bool) -> None:
    assert after([0.2, 0.3, 0.3, 0.3], "log_loss").is_out_of_patience(patience) is out


def test_a_trial_ends_when_its_patience_is_out_and_keeps_its_best_step(tiny: Tiny, tmp_path: Path) -> None:
    steps = ["trainer.max_steps=40", "trainer.validate_every=1", "trainer.patience=2", "optimizer.lr=0.3"]
    trial = train(tiny("precision=fp32", *steps), tmp_path)
    validated = losses(trial, "validation")
    lowest = min(range(len(validated)), key=validated.__getitem__)
    assert trial.done.step == len(validated) == lowest + 3 < 40
    assert trial.best.best_step == lowest + 1
    kept = sorted(file.parent.name for file in trial.where.folder.checkpoints.glob("*/checkpoint.json"))
    assert kept == [f"step-{lowest + 1:08d}", f"step-{lowest + 3:08d}"]
    state = json.loads((trial.where.folder.checkpoints / kept[-1] / "checkpoint.json").read_text())["state"]
    ((_, done),) = [pair for pair in state["dict"] if pair[0] == "done"]
    assert [key for key, _ in done["dict"]] == [
        *("step", "tokens", "train_seconds", "validation_seconds", "last_loss", "overflows"),
        *("prefix_seconds", "validations", "best_step", "best_value", "validations_since_best", "best_before"),
    ]
