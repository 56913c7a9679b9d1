"""Hydra-configured sweeps over quantised small language models. In Python: `import danube_sweep as ds`.

    run = ds.train("data=arena", "lora.rank=16", data=frame)
    sweep = ds.sweep("lora.rank=8,16", "optimizer.lr=1e-4,3e-4", data=frame)
    sweep.ranking(), sweep.best.predict(new_rows)

Importing the package imports nothing else: each name is fetched when it is first used.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danube_sweep import errors
    from danube_sweep.api.functions import compose, load, plan, sweep, train
    from danube_sweep.api.handles import Ensemble, Run, Sweep

__version__ = "0.2.0"

__all__ = ["Ensemble", "Run", "Sweep", "__version__", "compose", "errors", "load", "plan", "sweep", "train"]

_HOMES = {"functions": ["compose", "load", "plan", "sweep", "train"], "handles": ["Ensemble", "Run", "Sweep"]}


if not TYPE_CHECKING:  # it would give every other name a type too

    def __getattr__(name: str) -> Any:
        if name == "errors":
            return import_module("danube_sweep.errors")
        for home, names in _HOMES.items():
            if name in names:
                with warnings.catch_warnings():  # tqdm, which Optuna imports, misses widgets for bars that nobody draws
                    warnings.filterwarnings("ignore", "IProgress not found")
                    globals()[name] = value = getattr(import_module(f"danube_sweep.api.{home}"), name)
                return value
        raise AttributeError(f"module 'danube_sweep' has no attribute {name!r}; there are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
