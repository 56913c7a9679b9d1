"""The loss scale of fp16, over weights in fp32: it changes no bit of a step, and an overflow leaves out one alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import metrics
from workbench import Staying, packed, train

from danube_sweep.config.schema import Compute, Config
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.trial import ActiveTrial

Tiny = Callable[..., Config]


SECOND = 1.0, 1.0, 1.0, math.inf
"""The second step overflows: the longest one is tried before the first, and each has two micro-batches."""


@pytest.fixture
def config(tiny: Tiny) -> Config:
    """Clipped in every step, and accumulated over two micro-batches."""
    return tiny("lora=none", "precision=fp32", "optimizer=sgd", "trainer.max_steps=4", "trainer.clip_norm=0.01")


def scaled(config: Config, folder: Path, *factors: float) -> ActiveTrial:
    """Trains as fp16 does, but for the arithmetic of the model; a gradient is multiplied by the factors in turn."""
    pack, (trial,) = packed([config], folder)
    trial.config = replace(config, precision=replace(config.precision, compute=Compute.fp16))
    left = iter(factors)
    next(iter(trial.model.parameters.values())).register_hook(lambda gradient: gradient * next(left, 1.0))
    fit(PackModule(pack, [trial], Staying()), accelerator="cpu")
    assert trial.error is None and trial.scaler.is_enabled()
    return trial


def steps(trial: ActiveTrial) -> list[dict[str, str]]:
    return [
        {name: row[name] for name in ("step", "loss", "lr", "grad_norm")}
        for row in metrics(trial.where.folder.path, "train")
    ]


def test_a_scaled_loss_is_clipped_and_stepped_as_one_that_is_not(config: Config, tmp_path: Path) -> None:
    plain, other = train(config, tmp_path / "plain"), scaled(config, tmp_path / "scaled")
    assert steps(other) == steps(plain)
    for name, parameter in other.model.parameters.items():
        assert torch.equal(parameter, plain.model.parameters[name])


def test_a_step_that_overflows_moves_no_weight_and_the_schedule_goes_on(config: Config, tmp_path: Path) -> None:
    plain, other = train(config, tmp_path / "plain"), scaled(config, tmp_path / "scaled", *SECOND)
    wanted, found = steps(plain), steps(other)
    assert [row["lr"] for row in found] == [row["lr"] for row in wanted]
    assert not math.isfinite(float(found[1]["grad_norm"])) and math.isfinite(float(found[2]["grad_norm"]))
    assert found[1]["loss"] == wanted[1]["loss"] and found[2]["loss"] != wanted[2]["loss"]
    assert other.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale() / 2
