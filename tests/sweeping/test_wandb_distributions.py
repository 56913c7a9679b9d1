"""A W&B sweep file is drawn from as W&B draws: its own package is recorded in tests/kept."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import ROOT

from danube_sweep.config.schema import Sampler
from danube_sweep.sweeping.propose.samplers import _at, build_sampler, to_optuna
from danube_sweep.sweeping.propose.search_space import Distribution, drawn_text
from danube_sweep.sweeping.wandb_file.wandb_parameters import read_parameters

RECORDED = json.loads((ROOT / "tests" / "kept" / "wandb_distributions.json").read_text())
DRAWS = 3000
BOUND = 0.036
"""1.95 / sqrt(3000): a fair sample exceeds it once in a thousand (Kolmogorov and Smirnov)."""

FAR_TAILS = 3
"""Draws with a value that was not recorded: the 20,000 places of the recording do not reach the furthest tails."""


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return optuna.create_study()


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: json.dumps(one["parameter"]))
def test_three_thousand_draws_are_distributed_as_those_of_wandb(
    recorded: Mapping[str, Any], study: optuna.Study
) -> None:
    space = space_of(recorded)
    kind, sampler = to_optuna(space), build_sampler(Sampler.random, 0, 0)
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    sampled = (sampler.sample_independent(study, trial, "x", kind) for _ in range(DRAWS))
    assert distance([as_value(drawn_text(space, value)) for value in sampled], recorded) < BOUND


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: json.dumps(one["parameter"]))
def test_evenly_spread_draws_are_distributed_as_those_of_wandb(recorded: Mapping[str, Any]) -> None:
    space = space_of(recorded)
    places = (np.arange(DRAWS) + 0.5) / DRAWS
    draws = [as_value(drawn_text(space, _at(space, float(place)))) for place in places]
    assert distance(draws, recorded) < BOUND / 10


def space_of(recorded: Mapping[str, Any]) -> Distribution:
    return read_parameters({"x": recorded["parameter"]}, "random")[1]["x"]


def distance(draws: list[float | str], recorded: Mapping[str, Any]) -> float:
    """The largest distance between the distribution function of the draws and W&B's."""
    if "quantiles" in recorded:
        return furthest_quantile(np.array(draws), recorded["quantiles"])
    return furthest_share(draws, {as_value(text): share for text, share in recorded["shares"].items()})


def as_value(text: str) -> float | str:
    try:
        return round(float(text), 9)
    except ValueError:
        return text


def furthest_quantile(draws: np.ndarray, quantiles: list[float]) -> float:
    """How far the draws' distribution function is from W&B's, at its quantiles; steps count from both sides."""
    ordered, expected = np.sort(draws), np.arange(1, len(quantiles) + 1) / (len(quantiles) + 1)
    below, up_to = (np.searchsorted(ordered, quantiles, side) / len(ordered) for side in ("left", "right"))
    return float(np.maximum(expected - up_to, below - expected).max())


def furthest_share(draws: list[float | str], shares: dict[float | str, float]) -> float:
    assert sum(value not in shares for value in draws) <= FAR_TAILS
    expected = np.cumsum(list(shares.values()))
    return float(np.abs(np.cumsum([draws.count(value) / len(draws) for value in shares]) - expected).max())
