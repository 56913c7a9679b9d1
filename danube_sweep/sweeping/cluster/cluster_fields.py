"""The options of hydra/launcher=slurm and ray. Hydra imports them when any application starts: nothing else is here."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class ClusterOptions:
    """The fields of `hydra.launcher`: the request to the cluster. Not frozen, or Hydra could not override them."""

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

    @property
    def workers(self) -> int:
        """How many workers share the sweep: one on each node of each job."""
        return self.jobs * self.nodes

    def plain(self) -> dict[str, Any]:
        """For JSON; `from_plain` reads it."""
        return asdict(self)


@dataclass
class RayOptions:
    """The fields of `hydra.launcher` with hydra/launcher=ray: a sweep's request to a Ray cluster."""

    address: str = "auto"
    workers: int | None = None
    gpus_per_worker: int = 1
    cpus_per_worker: int = 1
    resources: dict[str, float] = field(default_factory=dict)
    max_restarts: int = 100


def from_plain(found: dict[str, Any]) -> ClusterOptions:
    """The inverse of `ClusterOptions.plain`; a field of a later version is left out."""
    return ClusterOptions(**{one.name: found[one.name] for one in fields(ClusterOptions) if one.name in found})
