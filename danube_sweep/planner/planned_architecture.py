"""Which architecture a config means: its shape's, or that of a local folder's config.json. No weights are read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from danube_sweep.config.facts.architectures import FAMILIES, Architecture, architecture_of
from danube_sweep.config.facts.checkpoint_files import shape_of
from danube_sweep.config.facts.positions import row_limit, too_long
from danube_sweep.config.identity import NO_FOLDER, is_random, names_a_folder
from danube_sweep.config.model_folder import check_model_folder
from danube_sweep.config.schema import Config, Model
from danube_sweep.config.schema.data_fields import DEFAULT_LENGTH
from danube_sweep.config.validate.common_checks import own_config
from danube_sweep.decoding import json_of
from danube_sweep.errors import ConfigError, ModelError, UnknownArchitecture


def planned_architecture(model: Model) -> Architecture:
    """The architecture of the trial; for a hub name, its config in the cache or that of conf/model.

    Raises ModelError for a folder that is not there or has no config.json that this planner can read.
    """
    file = _described_in(model)
    if file is None:
        return architecture_of(model.shape)
    try:
        return described_architecture(json_of(file))
    except UnknownArchitecture:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, OSError) else "there is none"
        raise ModelError(
            f"model.path={model.path}: the folder has no usable config.json ({reason}); give a complete copy"
        ) from error


def within_row_limit(config: Config) -> Config:
    """The config, its data.max_length brought down to the most tokens that the model can read if it is the default.

    Raises ConfigError for any other length beyond them. A folder that cannot be read is an error later.
    """
    if not (own_config(config.model) or FAMILIES[config.model.shape.model_type].encoder):
        return config
    try:
        limit = planned_architecture(config.model).row_limit
    except ModelError:
        return config
    length = config.data.max_length
    if limit is None or length <= limit:
        return config
    if length != DEFAULT_LENGTH:
        raise ConfigError(too_long(limit, length))
    return replace(config, data=replace(config.data, max_length=limit))


def _described_in(model: Model) -> Path | None:
    # The folder's config.json; of a hub name the one in the cache, if it was ever fetched.
    if model.path is None or is_random(model):
        return None
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        check_model_folder(folder)
        return folder / "config.json"
    if names_a_folder(model.path):
        raise ModelError(NO_FOLDER.format(model.path))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, "config.json", revision=model.commit or model.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def described_architecture(described: Mapping[str, Any]) -> Architecture:
    """The architecture of a transformers config. Raises UnknownArchitecture, KeyError or ValueError."""
    return replace(architecture_of(shape_of(described)), row_limit=row_limit(described))
