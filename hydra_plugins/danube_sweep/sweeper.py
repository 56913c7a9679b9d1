"""hydra/sweeper=grid and hydra/sweeper=optuna. sweeping/entry/hydra_multirun.py does the work."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper


@dataclass
class GridSweeperConf:
    _target_: str = "hydra_plugins.danube_sweep.sweeper.GridSweeper"


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.danube_sweep.sweeper.OptunaSweeper"


for name, node in {"grid": GridSweeperConf, "optuna": OptunaSweeperConf}.items():
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="danube_sweep")


class GridSweeper(Sweeper):
    """Every combination of the swept values."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.parts = hydra_context, task_function, config

    def sweep(self, arguments: Any) -> Any:
        from danube_sweep.sweeping.entry.hydra_multirun import Multirun

        Multirun(*self.parts).grid(arguments)


class OptunaSweeper(GridSweeper):
    """Draws trials one after the other, each from what is known by then; its settings are `sweep.…`."""

    def sweep(self, arguments: Any) -> Any:
        from danube_sweep.sweeping.entry.hydra_multirun import Multirun

        Multirun(*self.parts).search(arguments)
