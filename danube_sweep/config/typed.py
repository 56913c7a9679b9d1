"""From a composed config or a file to typed and checked dataclasses. OmegaConf ends here."""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from danube_sweep.config.derived import use_present_names, write_out
from danube_sweep.config.explain import explain
from danube_sweep.config.facts.hub_commits import is_folder, known_commit
from danube_sweep.config.from_checkpoint import fill_from_checkpoint
from danube_sweep.config.from_environment import FromEnvironment, keep_names
from danube_sweep.config.identity import is_random
from danube_sweep.config.no_urls import refuse_url
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config, LinearAdapter, Model, Pruner, Sweep, path_fields
from danube_sweep.config.unknown_fields import refuse_unknown_fields
from danube_sweep.config.validate import block_numbers, validate
from danube_sweep.config.validate.check_sweep import validate_sweep
from danube_sweep.errors import ConfigError


def typed_config(config: DictConfig) -> Config:
    """The typed and checked trial in a composed config, without the parts of Hydra and the sweep.

    Raises ConfigError, in one line, for unknown fields, missing values, failing interpolations and impossible
    combinations.
    """
    ours = _ours(config)
    try:
        fill_from_checkpoint(ours)
        typed = cast(Config, OmegaConf.to_object(_merged(ours)))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return _settled(typed, ours)


def on_schema(config: DictConfig) -> DictConfig:
    """The trial in a composed config, put on its schema: most of the work of `typed_config`.

    Values can be set on a copy, which `typed_on_schema` makes a trial. Raises ConfigError for unknown fields, and
    OmegaConf's errors.
    """
    return _merged(_ours(config))


def typed_on_schema(trial: DictConfig) -> Config:
    """`typed_config` of a trial that is on its schema; `trial` may change. Raises its errors."""
    try:
        fill_from_checkpoint(trial)
        typed = cast(Config, OmegaConf.to_object(trial))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return _settled(typed, trial)


def _ours(config: DictConfig) -> DictConfig:
    refuse_unknown_fields(config)
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", *SWEEP_OPTIONS)])


def _merged(ours: DictConfig) -> DictConfig:
    return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), ours))


def _settled(typed: Config, composed: DictConfig) -> Config:
    keep_names(typed, composed)
    _check_lists(typed)
    if isinstance(typed.lora, LinearAdapter) and typed.lora.layers is not None:
        typed.lora.layers = block_numbers(typed.lora.layers)
    use_present_names(typed)
    validate(typed)
    write_out(typed)
    _make_paths_absolute(typed)
    typed.data.settle()
    _settle_commit(typed.model)
    return typed


def _check_lists(config: Config) -> None:
    # OmegaConf checks what an interpolation leads to only where a single value is wanted.
    for group in OPTIONS:
        part = getattr(config, group)
        for field in fields(part):
            value = getattr(part, field.name)
            if str(field.type).startswith("list[") and not isinstance(value, list | None):
                raise ConfigError(f"{group}.{field.name} takes a list: write {group}.{field.name}=[…]")


def _settle_commit(model: Model) -> None:
    # The trial keeps its weights when the branch moves on. The trial's hash reports missing sources.
    if model.path is not None and not is_random(model):
        model.commit = model.commit or known_commit(model.path, model.revision)


def typed_sweep(config: DictConfig) -> tuple[Sweep, Pruner]:
    """The typed and checked settings of the sweep in a composed config. Raises ConfigError in one line."""
    refuse_unknown_fields(config)
    try:
        sweep, pruner = (cast(Any, OmegaConf.to_object(config[group])) for group in SWEEP_OPTIONS)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    validate_sweep(sweep, pruner)
    return sweep, pruner


def _make_paths_absolute(config: Config) -> None:
    # A run folder must make sense from any working directory.
    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(item) for item in value]
        if isinstance(value, FromEnvironment):
            return value.absolute()
        return str(Path(value).expanduser().absolute()) if isinstance(value, str) else value

    for group, part in ((group, getattr(config, group)) for group in OPTIONS):
        for name, kind in path_fields(part).items():
            value = getattr(part, name)
            for text in value if isinstance(value, list) else [value]:
                refuse_url(str(text), f"{group}.{name}")
            if kind in ("files", "place") or (value is not None and is_folder(value)):
                setattr(part, name, absolute(value))
