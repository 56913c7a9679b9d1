"""Overrides in, validated `Config` out; no torch. Hydra and OmegaConf end here: below there are dataclasses."""

import difflib
import re
from collections.abc import Sequence
from typing import cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from danube_sweep import paths, trial
from danube_sweep.errors import ConfigError, UserError
from danube_sweep.schema import OPTIONS, Config
from danube_sweep.validate import validate

VERSION_BASE = "1.3"


def register() -> None:
    """Makes the schemas and the `trial_hash` resolver known to Hydra; calling it twice does no harm."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for group, options in OPTIONS.items():
        for name, schema in options.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
    OmegaConf.register_new_resolver("trial_hash", _hash_or_invalid, replace=True)


def _hash_or_invalid(*, _root_: DictConfig) -> str:
    # Names the run folder. A config with a mistake still needs a name here: its error comes from the run itself.
    try:
        return trial.trial_hash(to_config(_root_))[:8]
    except UserError:
        return "invalid"


def to_config(config: DictConfig) -> Config:
    """The typed and checked form of a composed config (its `hydra` node is ignored).

    Raises ConfigError, in one line, for missing values, failing interpolations and impossible combinations.
    """
    ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    try:
        typed = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), ours)))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    validate(typed)
    return typed


def compose(overrides: Sequence[str] = ()) -> Config:
    """What `danube-sweep OVERRIDES…` would train. Raises ConfigError in one line."""
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(paths.conf_dir()), version_base=VERSION_BASE):
            return to_config(hydra_compose("config", overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def explain(error: BaseException) -> str:
    """A Hydra or OmegaConf error in one line: field, value, way out."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    first = " ".join(str(getattr(cause, "msg", None) or cause).split("full_key")[0].split())
    match cause:
        case ConfigKeyError() | ConfigAttributeError():
            return _unknown_field(key, cause)
        case MissingMandatoryValue():
            return f"{key} is required: give {key}=…"
        case ValidationError():
            return f"{key}: {first[0].lower()}{first[1:]}"
        case InterpolationResolutionError() | InterpolationKeyError():
            return f"{key}: {first}"
        case OmegaConfBaseException():
            return f"{key}: {first}" if key else first
    return _unknown_option(str(error)) or " ".join(str(error).split())


def _unknown_field(key: str, error: OmegaConfBaseException) -> str:
    schema = error.object_type
    names = list(getattr(schema, "__dataclass_fields__", {}))
    parent, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {parent + '.' if parent else ''}{close[0]}? " if close else ""
    return f"{key}: no such field; {hint}it has {', '.join(names) or 'no fields'}"


def _unknown_option(message: str) -> str | None:
    # Hydra: "Could not find 'head/foo'\n\nAvailable options in 'head':\n\tcausal\n\tlm…"
    match = re.search(
        r"Could not find '(?:([\w/]+)/)?([^'/]+)'(.*?Available options in '[^']*':\s*(.*))?", message, re.S
    )
    if match is None or match[1] is None:
        return None
    group, value, options = match[1], match[2], (match[4] or "").split("Config search path")[0].split()
    close = difflib.get_close_matches(value, options, n=1)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    return f"{group}={value}: no such option; {hint}there are {', '.join(options)}"
