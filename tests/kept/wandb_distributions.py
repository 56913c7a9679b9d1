"""Records what W&B's own package draws, for tests/sweeping/test_wandb_distributions.py.

    python3 -m venv side && side/bin/pip install 'sweeps==0.3.0' 'numpy<2'
    side/bin/python tests/kept/wandb_distributions.py      writes wandb_distributions.json beside this file

A discrete distribution is recorded as the share of each value, a continuous one by 199 of its quantiles. Both come from
the inverse of its distribution function at 20,000 places.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

PARAMETERS = [
    {"min": 1, "max": 6},
    {"min": 0, "max": 0.3},
    {"min": 0.1, "max": 2},
    {"distribution": "uniform", "min": -2, "max": 5},
    {"distribution": "q_uniform", "min": 4, "max": 64, "q": 8},
    {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
    {"distribution": "q_uniform", "min": 3, "max": 10},
    {"distribution": "log_uniform", "min": -9, "max": -2},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    {"distribution": "inv_log_uniform", "min": 1, "max": 6},
    {"distribution": "inv_log_uniform_values", "min": 0.001, "max": 1.0},
    {"distribution": "q_log_uniform", "min": 0, "max": 4, "q": 2},
    {"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 8},
    {"distribution": "q_log_uniform_values", "min": 4, "max": 100, "q": 1},
    {"distribution": "normal", "mu": 1, "sigma": 2},
    {"distribution": "log_normal", "mu": -3, "sigma": 0.5},
    {"distribution": "q_normal", "mu": 10, "sigma": 3, "q": 2},
    {"distribution": "q_log_normal", "mu": 2, "sigma": 0.5, "q": 1},
    {"distribution": "beta", "a": 2, "b": 5},
    {"distribution": "beta"},
    {"distribution": "q_beta", "a": 2, "b": 2, "q": 0.1},
    {"values": ["a", "b", "c"]},
    {"values": ["a", "b", "c"], "probabilities": [0.7, 0.2, 0.1]},
]
FEW = 60


def recorded(parameter: dict) -> dict:
    """What `sweeps` draws from a parameter."""
    from sweeps.params import HyperParameter

    places = (np.arange(20_000) + 0.5) / 20_000
    kind = HyperParameter("x", dict(parameter))
    drawn = [one.item() if hasattr(one, "item") else one for one in (kind.ppf(place) for place in places)]
    if len(set(drawn)) <= FEW:
        shares = {str(value): round(count / len(drawn), 6) for value, count in sorted(Counter(drawn).items())}
        return {"parameter": parameter, "shares": shares}
    quantiles = np.quantile(drawn, np.arange(1, 200) / 200)
    return {"parameter": parameter, "quantiles": [float(f"{value:.8g}") for value in quantiles]}


if __name__ == "__main__":
    rows = ",\n".join(json.dumps(recorded(parameter)) for parameter in PARAMETERS)
    Path(__file__).with_suffix(".json").write_text(f"[\n{rows}\n]\n")
