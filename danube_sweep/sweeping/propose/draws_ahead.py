"""How many draws of a search are made before results are known. Imports no Optuna: a plan asks too."""

from typing import Final

from danube_sweep.config.schema import Sampler, Sweep
from danube_sweep.config.validate import AUTO

LEARNING: Final = frozenset({Sampler.tpe, Sampler.gp, Sampler.cmaes})
"""The samplers whose draws depend on the results so far."""
MOST_STARTUP: Final = 10


def startup_draws(trials: int | None) -> int:
    """How many draws of a search of so many trials are spread evenly, before a sampler learns: a quarter at most."""
    return MOST_STARTUP if trials is None else max(1, min(MOST_STARTUP, trials // 4))


def draws_ahead(sweep: Sweep, drawn: int, known: int) -> int | None:
    """How many trials without a result a search's pack may have; None for no limit.

    By itself those of the start-up, which learn from nothing, and then half as many as there are results.
    """
    if sweep.sampler not in LEARNING:
        return None
    if sweep.draws_ahead != AUTO:
        return int(sweep.draws_ahead)
    startup = startup_draws(sweep.trials)
    return startup if drawn < startup else max(2, known // 2)
