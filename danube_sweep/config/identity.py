"""The identity of a trial: a hash over what it means."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from danube_sweep.config import first_version, offered_options
from danube_sweep.config.fingerprints import file_digest, weights_fingerprint
from danube_sweep.config.schema import Config, Data, Init, Model, path_fields
from danube_sweep.errors import CheckpointError

HASH_VERSION = 2
"""Raise it when a default or the arithmetic changes: fields at their default are not part of the hash.

A folder keeps the version that it began with, and a checkpoint of an older one is not continued.
"""

_NOT_THE_TRIAL = {
    "name",
    "model",
    "device",
    "tracking",
    "trainer.eval_batch",
    "trainer.log_every",
    "trainer.score_test",
    "data.cache_prefix",
    "data.revision",
}
"""Fields that do not count: the model does by its weights, in `_backbone_meaning`, a revision by its commit."""


_NOT_THE_SPLIT = ("max_length", "truncation", "overlap", "batching", "order_seed", "cache_prefix", "swap_augment")
"""Fields of the data that do not decide which rows train and validate, or what their labels are."""


def is_random(model: Model) -> bool:
    """Whether the backbone's weights are drawn and not loaded."""
    return model.init is Init.random or (model.init is Init.auto and model.path is None)


NO_FOLDER = "model.path={}: no such folder; give a hub name or a folder that exists"


def names_a_folder(path: str) -> bool:
    """Whether `model.path` can be no hub name, which is OWNER/NAME."""
    return path[:1] in "./~" or path.count("/") != 1


def trial_hash(config: Config, version: int = HASH_VERSION) -> str:
    """32 hex digits over what the trial means, equal for equal meaning wherever it is started.

    Files count by content, a data set of the hub by its commit and a local backbone by its weights; device, tracking
    and names do not count; a field counts only when it is off its default. `version`: of the rules, for folders that
    an older one began. Raises DataError for missing data, CheckpointError for a version that is not known here.
    """
    if not 1 <= version <= HASH_VERSION:
        raise CheckpointError(
            f"this folder has hashes of version {version}, and danube_sweep knows {HASH_VERSION}; upgrade"
        )
    defaults = first_version.DEFAULTS if version == 1 else {}
    meaning = {"version": version, "trial": _meaning(config, "", defaults)}
    meaning["backbone"] = _backbone_meaning(config.model, version)
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def split_hash(config: Config) -> str:
    """32 hex digits over the rows that train and validate and what is learned from them: trials of one split share it.

    Raises DataError for missing data.
    """
    data = {key: value for key, value in _meaning(config.data, "data.", {}).items() if key not in _NOT_THE_SPLIT}
    text = json.dumps([config.head.target.value, data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _meaning(node: Any, prefix: str, defaults: Mapping[str, Any]) -> Any:
    if isinstance(node, Enum):
        return node.value
    if not dataclasses.is_dataclass(node):
        return node
    fields: dict[str, Any] = {"kind": offered_options.meaning(node)}
    paths, sources = path_fields(node), node.source_meaning() if isinstance(node, Data) else {}
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if key in _NOT_THE_TRIAL:
            continue
        if dataclasses.is_dataclass(value):
            fields[field.name] = _meaning(value, f"{key}.", defaults)
        elif field.name in sources:
            fields[field.name] = sources[field.name]
        elif paths.get(field.name) == "files":
            fields[field.name] = _content(value, key)
        elif value != defaults.get(key, _default(field)):
            fields[field.name] = _meaning(value, "", {})
    return fields


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _content(value: str | list[str] | None, field: str) -> Any:
    match value:
        case None:
            return None
        case list():
            return [_content(item, field) for item in value]
        case _:
            return file_digest(value, field)


def _backbone_meaning(model: Model, version: int) -> Any:
    around: dict[str, Any] = {"chat": dataclasses.asdict(model.chat)} if model.variant == "chat" else {}
    around |= {"start": model.start} if model.start != "" else {}
    if is_random(model):
        return {"random": model.init_seed, "shape": model.shape.meaning(), **around}
    assert model.path is not None
    folder = Path(model.path).expanduser()
    local = folder.is_dir()
    fingerprint = first_version.weights_fingerprint if version == 1 else weights_fingerprint
    source = fingerprint(folder) if local else f"{model.path}@{model.revision or 'main'}"
    tokenizer = first_version.tokenizer_digests(folder) if local else None
    return {"source": source, "tokenizer": tokenizer, **around}
