"""The sources of a search's next trial: a low-discrepancy sequence, Optuna's samplers, and its distributions."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

from danube_sweep.config.schema import Sampler
from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.propose.search_space import (
    TAIL,
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Weighted,
)


def evenly_spread(space: Mapping[str, Distribution], seed: int, place: int) -> dict[str, Any]:
    """The point at a place of a scrambled Sobol sequence over the space, as Optuna would draw it: some by quantile."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(space), scramble=True, rng=seed)
    point = sequence.random(1)[0] if place == 0 else sequence.fast_forward(place).random(1)[0]
    return {key: _at(one, float(where)) for (key, one), where in zip(space.items(), point, strict=True)}


def _at(distribution: Distribution, where: float) -> Any:
    """The value at a place from 0 to 1 of a distribution."""
    match distribution:
        case Choice(values=values):
            return values[min(int(where * len(values)), len(values) - 1)]
        case Weighted():
            return where
        case Rounded(low=low, high=high, log=log):
            return _at(Number(low, high, log), where)
        case Normal() | Beta():
            return TAIL + where * (1 - 2 * TAIL)
        case Number(low=low, high=high, log=log, step=step, whole=whole):
            by = (step or 1) if whole and not log else None if log else step
            if by is not None:
                count = math.floor((high - low) / by + 1e-9) + 1
                value = low + by * min(int(where * count), count - 1)
            elif log and whole:  # each number gets its part of the logarithmic scale
                value = round(math.exp(math.log(low - 0.5) + where * math.log((high + 0.5) / (low - 0.5))))
            else:
                value = math.exp(math.log(low) + where * math.log(high / low)) if log else low + where * (high - low)
            value = min(max(value, low), high)
            return int(value) if whole else value
    raise TypeError(f"no point in {type(distribution).__name__}")


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """Optuna's distribution; one that Optuna lacks is drawn by its quantile."""
    match distribution:
        case Choice(values=values):
            return CategoricalDistribution(values)
        case Weighted():
            return FloatDistribution(0.0, 1.0)
        case Normal() | Beta():
            return FloatDistribution(TAIL, 1 - TAIL)
        case Rounded(low=low, high=high, log=log):
            return FloatDistribution(low, high, log=log)
        case Number(low=low, high=high, log=log, step=step, whole=True):
            return IntDistribution(int(low), int(high), log=log, step=1 if log else int(step or 1))
        case Number(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=None if log else step)
    raise TypeError(f"no distribution for {type(distribution).__name__}")


def build_sampler(sampler: Sampler, seed: int, drawn: int) -> BaseSampler:
    """The sampler for the next draw. A search that continues does not begin its random numbers again.

    It learns from the first result on. The draws before it are `evenly_spread`, like all draws of qmc. Raises
    ConfigError for grid and for a missing package, TypeError for qmc, which has no sampler.
    """
    own_seed = (seed * 1_000_003 + drawn) % 2**32
    match sampler:
        case Sampler.tpe:
            return optuna.samplers.TPESampler(
                n_startup_trials=1, seed=own_seed, multivariate=True, group=True, constant_liar=True
            )
        case Sampler.random:
            return optuna.samplers.RandomSampler(seed=own_seed)
        case Sampler.gp:
            _needs("gp", "torch", "scipy")
            return optuna.samplers.GPSampler(seed=own_seed, n_startup_trials=2)
        case Sampler.cmaes:
            _needs("cmaes", "cmaes")
            return optuna.samplers.CmaEsSampler(seed=own_seed, warn_independent_sampling=False)
        case Sampler.qmc:
            raise TypeError("a sequence has no sampler: evenly_spread")
    raise ConfigError("sweep.sampler=grid runs every cell and draws nothing; use choice(…) or range(…)")


def _needs(sampler: str, *packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"sweep.sampler={sampler} needs {missing[0]}: pip install {missing[0]}, or use tpe")
