"""hydra/launcher=slurm as a typed object, checked before anything is written."""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from danube_sweep.config.schema import Device
from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions

AT = "hydra.launcher"


def cluster_options(launcher: DictConfig) -> ClusterOptions:
    """The options in `hydra.launcher`. Raises ConfigError for a value that cannot be meant, or a missing scheduler."""
    values: Any = OmegaConf.to_container(launcher, resolve=True)
    values.pop("_target_")
    found = ClusterOptions(**values)
    if found.cluster not in ("slurm", "local"):
        raise ConfigError(
            f"{AT}.cluster={found.cluster}: give slurm, or local to try the jobs on this machine without a scheduler"
        )
    for name in ("jobs", "nodes", "timeout_min", "array_parallelism", "signal_delay_s"):
        if (value := getattr(found, name)) < 1:
            raise ConfigError(f"{AT}.{name} must be at least 1, got {value}")
    if found.max_num_timeout < 0:
        raise ConfigError(f"{AT}.max_num_timeout must be at least 0, got {found.max_num_timeout}")
    if found.signal_delay_s >= 60 * found.timeout_min:
        raise ConfigError(
            f"{AT}.signal_delay_s={found.signal_delay_s} is no less than the whole job of "
            f"{AT}.timeout_min={found.timeout_min}; give a longer job or a shorter delay"
        )
    check_scheduler(found)
    return found


def check_scheduler(options: ClusterOptions) -> None:
    """Raises ConfigError unless jobs can be submitted from here."""
    if find_spec("submitit") is None:
        raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'danube_sweep[slurm]'")
    if options.cluster == "local":
        _check_local(options)
        return
    missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"hydra/launcher=slurm: {', '.join(missing)} not found on this machine; run the command on a login node of "
            f"the cluster, or try the jobs here with {AT}.cluster=local"
        )


def _check_local(options: ClusterOptions) -> None:
    default = ClusterOptions()
    names = ("nodes", "partition", "qos", "account", "constraint", "additional_parameters", "cpus_per_task", "mem_gb")
    given = [f"{AT}.{name}" for name in names if getattr(options, name) != getattr(default, name)]
    if given:
        raise ConfigError(f"{', '.join(given)}: only a scheduler keeps to it; leave it out with {AT}.cluster=local")
    if not isinstance(options.gpus_per_node, int | None):
        raise ConfigError(f"{AT}.gpus_per_node={options.gpus_per_node}: give a number with {AT}.cluster=local")


def check_named_device(device: DictConfig, swept: Sequence[str]) -> str | None:
    """Raises ConfigError unless the trials' device is stated, since a plan made here must hold on the nodes.

    `device` is that of the command, `swept` holds the options of a sweep over devices. Returns a line for the user
    about a CPU, else None.
    """
    present = [one for one in swept if one == "auto" or one.partition(":")[0] == "cuda"]
    accelerator, figures = str(device.accelerator), str(device.figures)
    if accelerator == "cpu" or "cpu" in swept:
        return "device=cpu: types and memory are those of this machine; the nodes should have the same CPU"
    if present or (not swept and (accelerator == "auto" or figures == Device().figures)):
        accelerator = present[0] if present else accelerator
        raise ConfigError(
            f"device={accelerator} would be planned for this machine, not for the cluster's nodes; name their device, "
            "for example device=a100_80gb, or write its figures to device/mine.yaml (docs/extending.md)"
        )
    return None


def state_folder(sweep: Path, options_folder: str | None, cache: Path) -> Path:
    """The folder of submitit's files for a sweep. It is never inside the sweep's folder, which other users may have
    made.

    Raises ConfigError for such a place.
    """
    import hashlib

    key = hashlib.sha256(str(sweep.resolve()).encode()).hexdigest()[:16]
    base = cache / "cluster" if options_folder is None else Path(options_folder).expanduser().absolute()
    if base.resolve().is_relative_to(sweep.resolve()):
        raise ConfigError(f"{AT}.folder={options_folder} is inside the sweep's folder; give one outside it")
    return base / key
