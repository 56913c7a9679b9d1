"""The identity of a trial: a hash over what it means."""

import dataclasses
import hashlib
import json
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from danube_sweep.config import extension
from danube_sweep.config.schema import Config, Data, Init, Model, path_fields
from danube_sweep.errors import DataError, ModelError

HASH_VERSION = 1
"""Raise it when a default changes: fields at their default are not part of the hash."""

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


def is_random(model: Model) -> bool:
    """Whether the backbone's weights are drawn and not loaded."""
    return model.init is Init.random or (model.init is Init.auto and model.path is None)


NO_FOLDER = "model.path={}: no such folder; give a hub name or a folder that exists"


def names_a_folder(path: str) -> bool:
    """Whether `model.path` can be no hub name, which is OWNER/NAME."""
    return path[:1] in "./~" or path.count("/") != 1


def trial_hash(config: Config) -> str:
    """32 hex digits over what the trial means, equal for equal meaning wherever it is started.

    Files count by content, a data set of the hub by its commit and a local backbone by its weights; device, tracking
    and names do not count; a field counts only when it is off its default. Raises DataError for missing data.
    """
    meaning = {"version": HASH_VERSION, "trial": _meaning(config, "")}
    meaning["backbone"] = _backbone_meaning(config.model)
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _meaning(node: Any, prefix: str) -> Any:
    if isinstance(node, Enum):
        return node.value
    if not dataclasses.is_dataclass(node):
        return node
    fields: dict[str, Any] = {"kind": extension.meaning(node)}
    paths, sources = path_fields(node), node.source_meaning() if isinstance(node, Data) else {}
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if key in _NOT_THE_TRIAL:
            continue
        if dataclasses.is_dataclass(value):
            fields[field.name] = _meaning(value, f"{key}.")
        elif field.name in sources:
            fields[field.name] = sources[field.name]
        elif paths.get(field.name) == "files":
            fields[field.name] = _content(value, key)
        elif value != _default(field):
            fields[field.name] = _meaning(value, "")
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


def _backbone_meaning(model: Model) -> Any:
    around: dict[str, Any] = {"chat": dataclasses.asdict(model.chat)} if model.variant == "chat" else {}
    around |= {"start": model.start} if model.start else {}
    if is_random(model):
        return {"random": model.init_seed, "shape": dataclasses.asdict(model.shape), **around}
    assert model.path is not None
    folder = Path(model.path).expanduser()
    local = folder.is_dir()
    source = weights_fingerprint(folder) if local else f"{model.path}@{model.revision or 'main'}"
    tokenizer = [file_digest(file) for file in sorted(folder.glob("tokenizer.*"))] if local else None
    return {"source": source, "tokenizer": tokenizer, **around}


def file_digest(path: str | Path, field: str = "data.path") -> str:
    """SHA-256 of a file's bytes. Raises DataError, naming `field`, if there is no such file."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{field}={path}: no such file (looked in {Path.cwd()})")
    stat = file.stat()
    return _file_digest(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_fingerprint(folder: Path) -> str:
    """Tells one folder of safetensors weights from another without reading gigabytes.

    Hashes config.json, each file's size and 64 KiB at 64 places spread over it, the header among them: a different
    training run differs at every place. The same files fingerprint alike as a hub snapshot and as a copied folder.
    """
    digest = hashlib.sha256()
    config = folder / "config.json"
    digest.update(json.dumps(_architecture(config), sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            for place in range(64):
                stream.seek(max(size - 65536, 0) * place // 63)
                digest.update(stream.read(65536))
    return digest.hexdigest()[:32]


def _architecture(config: Path) -> dict[str, Any]:
    if not config.is_file():
        return {}
    try:
        described = dict(json.loads(config.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ModelError(f"model.path: {config} is damaged; download or save the model again") from error
    return {key: value for key, value in described.items() if key != "transformers_version" and key[:1] != "_"}
