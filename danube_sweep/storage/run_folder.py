"""What a trial is: its identity (a hash over what it means), its states, and the folder of its run.

Run folder:
    config.yaml        the resolved config
    environment.json   versions, device, git state, command
    metrics.csv        a row per step and per validation
    log.txt            what the terminal showed
    checkpoints/       while it trains: the last step and the best one
    trial.json         in a sweep: number, overrides, hash
    attempts.jsonl     in a sweep: a line per attempt, how it ended and how long it took
    adjusted.json      in a sweep: the micro-batch that an out-of-memory trial was given instead
    adapter/ | model/  when finished: what was trained, ready for PEFT | transformers
    predictions.parquet
    result.json        last, atomic, for every terminal state
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from danube_sweep.config import extension
from danube_sweep.config.schema import Config, Data, Init, Model
from danube_sweep.errors import CheckpointError, DataError, DiskError, ModelError

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


class State(Enum):
    """How a run ended; all but `preempted`, which can go on from its checkpoint, are in its result.json."""

    finished = "finished"
    pruned = "pruned"
    failed = "failed"
    oom = "oom"
    diverged = "diverged"
    killed = "killed"
    timeout = "timeout"
    disk_full = "disk_full"
    invalid = "invalid"
    preempted = "preempted"


MICRO_BATCH = "trainer.micro_batch"
"""The one value that a sweep may change in a trial that ran out of memory; the trial stays the same."""

COMPLETE = (State.finished.value, State.pruned.value)
"""The states of a trial that ended as it should: it has metrics, predictions and a product."""


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
    sources = node.source_meaning() if isinstance(node, Data) else {}
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if key in _NOT_THE_TRIAL:
            continue
        if dataclasses.is_dataclass(value):
            fields[field.name] = _meaning(value, f"{key}.")
        elif field.name in sources:
            fields[field.name] = sources[field.name]
        elif field.metadata.get("path"):
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


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Every write is whole or not at all."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def claim(self) -> Path:
        return self.path / ".claim"

    @property
    def trial(self) -> Path:
        return self.path / "trial.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def adjusted(self) -> Path:
        return self.path / "adjusted.json"

    def micro_batch(self, config: Config) -> int:
        """Rows of a forward pass: what the config asks for, or what a sweep has given the trial to make it fit.

        Raises CheckpointError for a damaged adjusted.json.
        """
        if not self.adjusted.is_file():
            return int(config.trainer.micro_batch)
        return int(read_json(self.adjusted).get(MICRO_BATCH, config.trainer.micro_batch))

    def read_result(self) -> dict[str, Any] | None:
        """The result of an ended run; None if it is running, interrupted or new."""
        return read_json(self.result) if self.result.is_file() else None


def number_at(result: Mapping[str, Any], address: str) -> float | None:
    """The finite number in a result at an address like measured/seconds/train; None if there is none."""
    node: Any = result
    for word in address.split("/"):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, bool) or not isinstance(node, int | float) or not math.isfinite(node):
        return None
    return float(node)


def write_text(path: Path, text: str) -> None:
    """Writes redacted text under a temporary name in the same folder, syncs it and renames it.

    Raises DiskError when the disk is full or the folder cannot be written; an older file then stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(redact(text))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DiskError(
            f"{path} cannot be written: {error.strerror}; free some space or choose another folder"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`write_text` of JSON; raises DiskError."""
    write_text(path, json.dumps(redacted(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of ours. Raises CheckpointError if it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is cut short or damaged; delete it to run the trial again") from error


def sync_file(file: Path) -> None:
    """Makes a file's content survive a power cut."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|_PAT$", re.I)


def redact(text: str) -> str:
    """Replaces the values of environment variables that are named like secrets; files' paths are none."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name) and value in text and not os.path.exists(value):
            text = text.replace(value, f"<{name}>")
    return text


def redacted(node: Any) -> Any:
    """`redact` for every text in nested mappings and lists; to be used before anything escapes their signs."""
    match node:
        case str():
            return redact(node)
        case Mapping():
            return {str(key): redacted(value) for key, value in node.items()}
        case list() | tuple():
            return [redacted(value) for value in node]
    return node
