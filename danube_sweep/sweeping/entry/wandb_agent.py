"""The entry of the W&B agent, which starts one command per trial: the folder that its trial belongs in."""

import os
import re
from pathlib import Path
from typing import Any

from danube_sweep.config.from_environment import check_received
from danube_sweep.config.schema import Config
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import ConfigError
from danube_sweep.storage.folder_names import SWEEPS
from danube_sweep.storage.sweep_folder import SweepFolder

SWEEP_ID, PARAMETERS = "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"
"""Variables that the agent sets for its children: the sweep, and the file with the values chosen for this trial."""
DOOR = "wandb agent"
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def under_agent() -> str | None:
    """The id of the sweep whose agent started this process; None without one.

    Raises ConfigError for an id that is no plain word: it names a folder.
    """
    sweep = os.environ.get(SWEEP_ID)
    if sweep and not _PLAIN.fullmatch(sweep):
        raise ConfigError(f"{SWEEP_ID}={sweep!r}: not the id of a sweep, which has letters, digits, - and _; unset it")
    return sweep or None


def refuse_multirun() -> None:
    """Raises ConfigError under an agent; to be called for a multirun."""
    if sweep := under_agent():
        raise ConfigError(
            f"-m: the agent of sweep {sweep} starts one trial at a time; remove -m from the sweep file's command"
        )


def check_parameters() -> None:
    """Raises ConfigError for a value from the server that sets more than a trial, or reads this environment."""
    for key, value in _parameters().items():
        if key.lstrip("+~").partition("/")[0].partition(".")[0] == "hydra":
            raise ConfigError(f"{key} belongs to Hydra and is no parameter of a sweep; take it out of the sweep's file")
        check_received(f"the sweep's parameter {key}", value)


def trial_folder(config: Config, overrides: list[str], base: Path = SWEEPS) -> Path:
    """The folder of this trial in `base`/<sweep id>, the one of an earlier run if there was one: same hash.

    Raises ConfigError outside an agent, CheckpointError for a folder in use or from another version, DiskError.
    """
    sweep = under_agent()
    if sweep is None:
        raise ConfigError(f"{SWEEP_ID} is not set: this is no trial of the W&B agent; start it with `wandb agent`")
    folder = SweepFolder(base / sweep)
    with folder.locked():
        if folder.file.is_file():
            folder.read()
        else:
            folder.write({"door": DOOR, "settings": {}})
        [(entry, _)] = folder.add([(config, overrides, None)], shared=_fixed(overrides))
    return entry.path


def _fixed(overrides: list[str]) -> list[str]:
    # The constants in the sweep file's command are the same for every trial and would only lengthen the folders' names.
    chosen = _parameters()
    return [one for one in overrides if chosen and one.lstrip("+~").partition("=")[0] not in chosen]


def _parameters() -> dict[str, Any]:
    try:
        chosen = yaml_of(Path(os.environ[PARAMETERS]))
    except (KeyError, OSError, Undecodable):  # a name is not worth a trial
        return {}
    return {str(key): value for key, value in chosen.items()} if isinstance(chosen, dict) else {}
