"""The identity of a trial: a hash over what it means."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from danube_sweep.config import first_version, offered_options
from danube_sweep.config.derived import plainest
from danube_sweep.config.facts.hub_commits import cached_folder, model_commit, snapshot_of
from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.model_folder import check_model_folder
from danube_sweep.config.schema import Config, Data, Init, Model, path_fields
from danube_sweep.config.tokenizer_identity import tokenizer_identity
from danube_sweep.config.weights_identity import weights_identity
from danube_sweep.errors import CheckpointError, ModelError

HASH_VERSION = 2
"""Raise it when a default or the arithmetic changes: fields at their default are not part of the hash.

A folder keeps the version that it began with, and a checkpoint of an older one is not continued.
"""

_NOT_THE_TRIAL = {
    "name",
    "model",
    "device",
    "tracking",
    "storage",
    "trainer.benchmark_dir",
    "trainer.benchmark_test",
    "trainer.eval_batch",
    "trainer.micro_batch",
    "trainer.log_every",
    "trainer.score_test",
    "data.cache_prefix",
    "head.chunk",
    "data.layout",
    "data.revision",
}
"""Fields that do not count: the model does by its weights, in `_backbone_meaning`, a revision by its commit."""
_COUNTED_BEFORE = {1: {"trainer.micro_batch"}}
"""Those of them that counted in earlier versions."""


_NOT_THE_SPLIT = (
    "max_length", "truncation", "overlap", "batching", "order_seed", "cache_prefix", "swap_augment",
    "extra", "extra_weight", "extra_temperature",
)  # fmt: skip
"""Fields of the data that do not affect its own training rows, the validation rows or their labels."""


def is_random(model: Model) -> bool:
    """Whether the backbone's weights are drawn and not loaded."""
    return model.init is Init.random or (model.init is Init.auto and model.path is None)


NO_FOLDER = "model.path={}: no such folder; give a hub name or a folder that exists"


def names_a_folder(path: str) -> bool:
    """Whether `model.path` can be no hub name, which is OWNER/NAME."""
    return path[:1] in "./~" or path.count("/") != 1


def trial_hash(config: Config, version: int = HASH_VERSION, *, planning: bool = False) -> str:
    """32 hex digits over the meaning of the trial, the same wherever it is started.

    Files count by content, a local backbone by every byte of its weights and by its tokenizer, and hub contents
    by its commit. Device, tracking and names do not count. A field counts only when it is off its default.

    `version`: of the rules, for folders that an older one began. `planning`: a model whose commit is not known here
    counts by its name. Raises DataError for missing data, ModelError for weights that are missing, damaged or none,
    CheckpointError for a version that is not known here.
    """
    if not 1 <= version <= HASH_VERSION:
        raise CheckpointError(
            f"this folder has hashes of version {version}, and this danube_sweep knows up to {HASH_VERSION}; "
            "upgrade danube_sweep"
        )
    rules = _Rules(
        first_version.DEFAULTS if version == 1 else {}, frozenset(_NOT_THE_TRIAL - _COUNTED_BEFORE.get(version, set()))
    )
    trial = first_version.as_stated(config) if version == 1 else plainest(config)
    meaning = {"version": version, "trial": _meaning(trial, "", rules)}
    meaning["backbone"] = _backbone_meaning(config.model, version, planning=planning)
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def split_hash(config: Config) -> str:
    """32 hex digits over the training and validation rows and their target; trials of one split share it.

    Raises DataError for missing data.
    """
    data = {key: value for key, value in _meaning(config.data, "data.", _Rules()).items() if key not in _NOT_THE_SPLIT}
    text = json.dumps([config.head.target.value, data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class _Rules:
    # Of a version of the hashes: by field, the defaults that differ from today's, and the fields that do not count.
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    left_out: frozenset[str] = frozenset(_NOT_THE_TRIAL)


def _meaning(node: Any, prefix: str, rules: _Rules) -> Any:
    if isinstance(node, Enum):
        return node.value
    if not dataclasses.is_dataclass(node):
        return node
    fields: dict[str, Any] = {"kind": offered_options.meaning(node)}
    paths, sources = path_fields(node), node.source_meaning() if isinstance(node, Data) else {}
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if key in rules.left_out:
            continue
        if dataclasses.is_dataclass(value):
            fields[field.name] = _meaning(value, f"{key}.", rules)
        elif field.name in sources:
            fields[field.name] = sources[field.name]
        elif paths.get(field.name) == "files":
            if value == []:  # no list of files, as before there was such a field
                continue
            fields[field.name] = _content(value, key)
        elif value != rules.defaults.get(key, _default(field)):
            fields[field.name] = _meaning(value, "", rules)
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


def _backbone_meaning(model: Model, version: int, *, planning: bool) -> Any:
    around: dict[str, Any] = {"chat": dataclasses.asdict(model.chat)} if model.variant == "chat" else {}
    around |= {"start": model.start} if model.start != "" else {}
    if model.variant == "chat" and model.own_template and version > 1:
        around["own_template"] = True  # it decides whether marks are special tokens or plain text
    if is_random(model):
        return {"random": model.init_seed, "shape": model.shape.meaning(), **around}
    assert model.path is not None
    folder = Path(model.path).expanduser()
    if version == 1:
        return {**first_version.source(model, folder), **around}
    if not folder.is_dir():
        if names_a_folder(model.path):
            raise ModelError(NO_FOLDER.format(model.path))
        return {"source": _hub_meaning(model, planning=planning), **around}
    check_model_folder(folder)
    return {"source": weights_identity(folder), "tokenizer": tokenizer_identity(folder), **around}


def hub_source(model: Model) -> str | None:
    """NAME@COMMIT of a backbone from the hub, or from its download in the hub's cache, if that is known."""
    if is_random(model) or model.path is None:
        return None
    folder = Path(model.path).expanduser()
    name, commit = (snapshot_of(folder) or (None, None)) if folder.is_dir() else (model.path, model.commit)
    return None if commit is None else f"{name}@{commit}"


def lacks_commit(model: Model) -> bool:
    """Whether a backbone is to come from the hub and its commit is not known here: hashes of a plan are not its own."""
    return not (is_random(model) or model.path is None or Path(model.path).expanduser().is_dir() or model.commit)


def _hub_meaning(model: Model, *, planning: bool) -> str:
    path = str(model.path)
    try:
        return f"{path}@{model.commit or model_commit(path, model.revision)}"
    except ModelError:
        if planning:
            return f"{path}@{model.revision or 'main'}"
        raise


def other_hashes(config: Config) -> Iterator[str]:
    """The hashes of the same trial by another name of its backbone, as far as this machine knows one.

    A hub name has its download, and a download in the hub's cache its name and commit.
    """
    model = config.model
    if is_random(model) or model.path is None:
        return
    folder = Path(model.path).expanduser()
    path, commit = None, None
    if not folder.is_dir():
        found = cached_folder(model.path, model.commit) if model.commit else None
        path = None if found is None else str(found)
    elif (named := snapshot_of(folder)) is not None:
        path, commit = named
    if path is not None:
        same = dataclasses.replace(model, path=path, revision=None, commit=commit)
        with suppress(ModelError):  # a download that is not complete
            yield trial_hash(dataclasses.replace(config, model=same))
