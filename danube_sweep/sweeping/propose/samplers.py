"""What draws the next trial of a search: Optuna's samplers, and its distributions for our space."""

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

from danube_sweep.config.schema import Sampler
from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.propose.search_space import TAIL, Choice, Distribution, Normal, Number


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """Optuna's distribution; a normal one is drawn by its quantile."""
    match distribution:
        case Choice(values=values):
            return CategoricalDistribution(values)
        case Normal():
            return FloatDistribution(TAIL, 1 - TAIL)
        case Number(low=low, high=high, log=log, step=step, whole=True):
            return IntDistribution(int(low), int(high), log=log, step=1 if log else int(step or 1))
        case Number(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=None if log else step)
    raise TypeError(f"no distribution for {type(distribution).__name__}")


def build_sampler(sampler: Sampler, seed: int, drawn: int) -> BaseSampler:
    """The sampler for the next draw; a search that goes on does not begin its random numbers again."""
    own_seed = (seed * 1_000_003 + drawn) % 2**32
    match sampler:
        case Sampler.tpe:
            return optuna.samplers.TPESampler(seed=own_seed, multivariate=True, group=True, constant_liar=True)
        case Sampler.random:
            return optuna.samplers.RandomSampler(seed=own_seed)
        case Sampler.qmc:
            # One sequence for the whole search, but what it cannot draw (choices) anew each time.
            others = optuna.samplers.RandomSampler(seed=own_seed)
            return optuna.samplers.QMCSampler(
                scramble=True, seed=seed, independent_sampler=others, warn_independent_sampling=False
            )
        case Sampler.gp:
            _needs("gp", "torch", "scipy")
            return optuna.samplers.GPSampler(seed=own_seed)
        case Sampler.cmaes:
            _needs("cmaes", "cmaes")
            return optuna.samplers.CmaEsSampler(seed=own_seed, warn_independent_sampling=False)
    raise ConfigError("sweep.sampler=grid runs every cell and draws nothing; use choice(…) or range(…)")


def _needs(sampler: str, *packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"sweep.sampler={sampler} needs {missing[0]}: pip install {missing[0]}, or use tpe")
