"""hydra/launcher=slurm: workers on a cluster share the sweep's folder. sweeping/cluster does the work."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher


@dataclass
class SlurmLauncherConf:
    _target_: str = "hydra_plugins.danube_sweep.slurm.SlurmLauncher"
    cluster: str = "slurm"
    jobs: int = 1
    nodes: int = 1
    gpus_per_node: Any = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    timeout_min: int = 240
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    array_parallelism: int = 256
    setup: list[str] = field(default_factory=list)
    signal_delay_s: int = 120
    max_num_timeout: int = 100
    name: str = "danube_sweep"
    folder: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="danube_sweep")


class SlurmLauncher(Launcher):
    """Submits jobs that each train the trials of a sweep's folder; docs/scale.md has its options."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.parts = hydra_context, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """For other sweepers than ours, which submit the jobs themselves."""
        from danube_sweep.sweeping.entry.hydra_multirun import launch

        return launch(*self.parts, job_overrides)
