"""hydra/launcher=ray: workers in actors of a Ray cluster share the sweep's folder. sweeping/cluster does the work.

Its other name is ray_actors: hydra-ray-launcher has a launcher called ray, which keeps its name where it is installed.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

from danube_sweep.sweeping.cluster.cluster_fields import RayOptions


@dataclass
class RayLauncherConf(RayOptions):
    _target_: str = "hydra_plugins.danube_sweep.ray.RayLauncher"


names = ["ray_actors"] if find_spec("hydra_plugins.hydra_ray_launcher") else ["ray_actors", "ray"]
for name in names:
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=RayLauncherConf, provider="danube_sweep")


class RayLauncher(Launcher):
    """Starts actors that each train the trials of a sweep's folder; docs/scale.md has its options."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.parts = hydra_context, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """For other sweepers than ours, which start the actors themselves."""
        from danube_sweep.sweeping.entry.hydra_multirun import launch

        return launch(*self.parts, job_overrides)
