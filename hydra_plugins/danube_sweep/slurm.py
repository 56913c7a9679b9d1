"""hydra/launcher=slurm: workers on a cluster share the sweep's folder. sweeping/cluster does the work."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions


@dataclass
class SlurmLauncherConf(ClusterOptions):
    _target_: str = "hydra_plugins.danube_sweep.slurm.SlurmLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="danube_sweep")


class SlurmLauncher(Launcher):
    """Submits jobs that each train the trials of a sweep's folder; docs/scale.md has its options."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.parts = hydra_context, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """For other sweepers than ours, which submit the jobs themselves."""
        from danube_sweep.sweeping.entry.hydra_multirun import launch

        return launch(*self.parts, job_overrides)
