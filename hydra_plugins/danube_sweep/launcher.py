"""hydra/launcher=local: each trial in a process of its own. sweeping/entry/hydra_multirun.py does the work."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher


@dataclass
class LocalLauncherConf:
    _target_: str = "hydra_plugins.danube_sweep.launcher.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="danube_sweep")


class LocalLauncher(Launcher):
    """Runs trials in slots; its settings are `sweep.…`."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.parts = hydra_context, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """For other sweepers than ours, which drive the slots themselves."""
        from danube_sweep.sweeping.entry.hydra_multirun import launch

        return launch(*self.parts, job_overrides)
