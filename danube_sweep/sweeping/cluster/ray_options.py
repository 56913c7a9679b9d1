"""hydra/launcher=ray as a typed object, checked before anything is written, and the cluster that it asks for."""

import logging
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.cluster.cluster_fields import RayOptions
from danube_sweep.sweeping.cluster.cluster_options import AT


def ray_options(launcher: DictConfig) -> RayOptions:
    """The options in `hydra.launcher`. Raises ConfigError for a value that cannot be meant, or without Ray."""
    values: Any = OmegaConf.to_container(launcher, resolve=True)
    values.pop("_target_")
    found = RayOptions(**values)
    if found.workers is not None and found.workers < 1:
        raise ConfigError(f"{AT}.workers must be at least 1, got {found.workers}; null means one per GPU")
    for name, least in (("gpus_per_worker", 0), ("cpus_per_worker", 0), ("max_restarts", -1)):
        if (value := getattr(found, name)) < least:
            raise ConfigError(f"{AT}.{name} must be at least {least}, got {value}")
    if found.workers is None and found.gpus_per_worker == 0:
        raise ConfigError(f"{AT}.workers=null means one per GPU; give a number with {AT}.gpus_per_worker=0")
    if found.address.startswith("ray://"):
        raise ConfigError(
            f"{AT}.address={found.address}: the command must run on a machine of the cluster, which sees the sweep's "
            "folder; use ray job submit"
        )
    if find_spec("ray") is None:
        raise ConfigError("hydra/launcher=ray needs Ray: pip install 'danube_sweep[ray]'")
    return found


def connect(options: RayOptions) -> int:
    """Joins the cluster as its driver, until `ray.shutdown()`; returns how many workers it is asked for.

    Raises ConfigError without a cluster, or for GPUs in a cluster that has none.
    """
    import ray

    try:
        if not ray.is_initialized():
            ray.init(options.address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"{AT}.address={options.address}: no Ray cluster answers; start one with ray start --head, or try the "
            f"sweep on this machine with {AT}.address=local"
        ) from error
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if options.gpus_per_worker and not gpus:
        ray.shutdown()
        raise ConfigError(
            f"{AT}.gpus_per_worker={options.gpus_per_worker}: the Ray cluster has no GPU; for a CPU give "
            f"{AT}.gpus_per_worker=0, {AT}.workers=N and device=cpu"
        )
    return max(1, gpus // options.gpus_per_worker) if options.workers is None else options.workers
