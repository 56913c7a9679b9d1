"""Configs as files hold them: nested dicts of plain values, and back."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from danube_sweep.config import offered_options
from danube_sweep.config.explain import explain
from danube_sweep.config.from_environment import FromEnvironment, missing_variables
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Compute, Config, Pruner, Sweep
from danube_sweep.config.typed import typed_on_schema, typed_sweep
from danube_sweep.decoding import yaml_of
from danube_sweep.errors import CheckpointError, ConfigError

_LATER = {"storage"}
"""Groups that configs of older versions lack."""


def plain_config(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain values; groups with several kinds of options say which kind they are.

    Values from the environment are stored as the name of their variable.
    """
    plain = cast(dict[str, Any], _plain(config))
    for group in OPTIONS:
        options = offered_options.options(group)
        if len(options) > 1:
            plain[group] = {"kind": option_name(config, group), **plain[group]}
    return plain


def option_name(config: Config, group: str) -> str:
    """The option that the config has in a group: `ordinal` for head=ordinal."""
    chosen = type(getattr(config, group))
    return next(name for name, schema in offered_options.options(group).items() if schema is chosen)


def _plain(value: Any) -> Any:
    # OmegaConf says the same of a typed config; it takes 40 ms for it.
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, FromEnvironment):
        return value.stated
    return value.name if isinstance(value, Enum) else value


def plain_sweep(sweep: Sweep, pruner: Pruner) -> dict[str, Any]:
    """The settings of a sweep as nested dicts of plain values; `load_sweep` reads them."""
    kind = next(name for name, schema in SWEEP_OPTIONS["pruner"].items() if type(pruner) is schema)
    settings = {"sweep": OmegaConf.structured(sweep), "pruner": OmegaConf.structured(pruner)}
    plain = {name: OmegaConf.to_container(node, enum_to_str=True) for name, node in settings.items()}
    return {**plain, "pruner": {"kind": kind, **cast(dict[str, Any], plain["pruner"])}}


def load_sweep(plain: dict[str, Any], changes: Sequence[str] = ()) -> tuple[Sweep, Pruner]:
    """The inverse of `plain_sweep`, with changes like `sweep.slots=2`.

    Raises ConfigError for a change that does not fit, CheckpointError for settings that this version did not write.
    """
    try:
        pruner = dict(plain["pruner"])
        schema = SWEEP_OPTIONS["pruner"][pruner.pop("kind")]
        pruner.pop("max_validations", None)  # of hyperband, until its rungs were shares of the steps
        typed = {"sweep": OmegaConf.structured(Sweep), "pruner": OmegaConf.structured(schema)}
        stored = OmegaConf.merge(typed, {"sweep": dict(plain["sweep"]), "pruner": pruner})
    except (OmegaConfBaseException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"sweep.json is damaged or from another version: {' '.join(str(error).split())}"
        ) from error
    for change in changes:
        if re.match(r"(sweep|pruner)\.\w+=", change) is None:
            raise ConfigError(f"{change}: not a setting of a sweep; write sweep.FIELD=VALUE, and a list as [a,b]")
    try:
        OmegaConf.set_struct(stored, True)
        return typed_sweep(cast(DictConfig, OmegaConf.merge(stored, OmegaConf.from_dotlist(list(changes)))))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{' '.join(changes)}: not YAML; write sweep.FIELD=VALUE, and a list as [a,b]") from error


def sealed(config: Config) -> dict[str, Any]:
    """The part of the config that decides the answers of trained weights; a checkpoint states it."""
    plain = plain_config(config)
    model, data = plain["model"], plain["data"]
    groups = {group: plain[group] for group in ("precision", "lora", "head")}
    groups["head"] = {name: value for name, value in groups["head"].items() if name != "chunk"}  # decides no answer
    if groups["head"].get("tie_term") == "scalar":  # a field that came later
        del groups["head"]["tie_term"]
    reading = {f"model.{name}": model[name] for name in ("variant", "start", "chat")}
    if model["own_template"]:  # a field that came later
        reading["model.own_template"] = True
    return {**groups, **reading, "data.max_length": data["max_length"], "data.truncation": data["truncation"]}


def load_config(path: Path) -> Config:
    """The config whose `plain_config` was written to `path` as YAML.

    Raises CheckpointError if it is missing, damaged or from another version.
    """
    try:
        # Not OmegaConf.load: a class named 1e3 would come back as a number.
        plain = yaml_of(path)
        assert isinstance(plain, dict)
        if unset := missing_variables(plain):
            raise CheckpointError(f"{path}: the environment lacks {', '.join(unset)}, which it names; set it")
        if "hydra" in plain:
            raise CheckpointError(f"{path}: hydra is no part of a trial; remove it")
        kinds: list[type] = []
        groups: dict[str, Any] = {}
        for group in OPTIONS:
            fields = {} if group in _LATER and group not in plain else dict(plain.pop(group))
            options = offered_options.options(group)
            kind = fields.pop("kind", next(iter(options)) if len(options) == 1 else "")
            if kind not in options:
                missing = f"{group}={kind}: no installed package offers it; install it"
                why = offered_options.why_not(group, kind) or missing
                raise CheckpointError(f"{path}: {why}")
            kinds.append(options[kind])
            groups[group] = fields
        whole: dict[Any, Any] = {**plain, **groups}
        config = typed_on_schema(cast(DictConfig, OmegaConf.merge(_schema(tuple(kinds)), whole)))
        if config.trainer.micro_batch == "auto":  # a run settles it before it is stored
            raise CheckpointError(f"{path}: trainer.micro_batch=auto was changed since the run; restore its number")
        if config.precision.compute is Compute.auto:
            raise CheckpointError(f"{path}: precision.compute=auto was changed since the run; restore its type")
        return config
    except FileNotFoundError as error:
        reason = f"it has no {path.name}" if path.parent.is_dir() else "there is no such folder"
        raise CheckpointError(f"{path.parent} is not a run folder: {reason}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except CheckpointError:
        raise
    except (OmegaConfBaseException, AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or from another version: {' '.join(str(error).split())}") from error


@lru_cache(maxsize=64)
def _schema(kinds: tuple[type, ...]) -> DictConfig:
    # Making one takes 15 ms. A merge copies it.
    schema = OmegaConf.structured(Config)
    for group, kind in zip(OPTIONS, kinds, strict=True):
        schema[group] = OmegaConf.structured(kind)
    return cast(DictConfig, schema)
