"""Checkpoints: the trained tensors and states as safetensors and JSON. No pickle.

A checkpoint is whole or absent, and it is verified when it is loaded. It is a folder:

    adapter_config.json, adapter_model.safetensors   for PEFT's `from_pretrained` (LoRA, DoRA)
    config.json, model.safetensors                   for transformers (lora=full)
    head.safetensors                                 if the head has weights
    training.safetensors                             optimizer state (checkpoints/ only)
    predictions.safetensors                          validation output at this step (checkpoints/ only)
    checkpoint.json                                  the rest, with the SHA-256 of every other file
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from danube_sweep.decoding import json_of
from danube_sweep.errors import CheckpointError, DamagedCheckpoint
from danube_sweep.storage.checkpoints_by_step import MANIFEST
from danube_sweep.storage.files import content_hash, whole_folder, writing

FORMAT = 1
SEAL = "seal"
"""The key of the manifest's own hash."""


def write_checkpoint(
    folder: Path, manifest: Mapping[str, Any], write_files: Callable[[Path], None], run: Path | None = None
) -> None:
    """Fills a folder by `write_files` and seals it with hashes. An existing `folder` is replaced.

    `run` is the run's folder, if `folder` may lie elsewhere. Raises DiskError, for example when the disk is full, and
    BusyError if another process has taken over the run. Then no part of the new checkpoint stays.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder, replace=True, run=run) as temporary:
        write_files(temporary)
        hashes = {file.name: content_hash(file) for file in sorted(temporary.iterdir())}
        stated = json.loads(json.dumps({"format": FORMAT, **manifest, "files": hashes}))
        sealed = json.dumps({**stated, SEAL: _seal(stated)}, indent=1)
        (temporary / MANIFEST).write_text(f"{sealed}\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The verified manifest of a checkpoint.

    Raises DamagedCheckpoint if a file was changed or is missing, CheckpointError for another format.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise DamagedCheckpoint(f"{folder} is no checkpoint: it has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json_of(file)
        hashes: dict[str, str] = {**manifest["files"]}
        seal = manifest.pop(SEAL, None)  # manifests of version 0.1 have none
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{file} is damaged; use an earlier checkpoint or train again") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{file} has format {manifest.get('format')}, this version reads {FORMAT}; train again")
    if seal is not None and seal != _seal(manifest):
        raise DamagedCheckpoint(f"{file} was changed since it was saved; use an earlier checkpoint or train again")
    for name, expected in hashes.items():
        if Path(name).name != name:
            raise DamagedCheckpoint(f"{file} names {name!r}, which is no file of its folder; train again")
        if not (folder / name).is_file() or content_hash(folder / name) != expected:
            raise DamagedCheckpoint(f"{folder / name} was changed or is missing since it was saved; train again")
    return manifest


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError if it is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is missing or damaged; train again") from error


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors from any device as safetensors. Without tensors no file is written."""
    if tensors:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, file, metadata)


def pack_state(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Splits a nested state, such as an optimizer's, into JSON and tensors. `unpack_state` joins them again.

    Raises TypeError for a value that is neither.
    """
    tensors: dict[str, torch.Tensor] = {}
    names: dict[int, str] = {}  # bitsandbytes' parameters share their quantisation maps

    def walk(node: Any) -> Any:
        match node:
            case torch.Tensor():
                name = names.setdefault(id(node), str(len(names)))
                tensors[name] = node
                return {"tensor": name}
            case dict():
                return {"dict": [[key, walk(value)] for key, value in node.items()]}
            case list() | tuple():
                return {"list": [walk(value) for value in node]}
            case None | bool() | int() | float() | str():
                return node
        raise TypeError(f"a state of type {type(node).__name__} cannot be saved")

    return walk(state), tensors


def unpack_state(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `pack_state`; tuples come back as lists."""
    match skeleton:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"dict": list(items)}:
            return {key: unpack_state(value, tensors) for key, value in items}
        case {"list": list(items)}:
            return [unpack_state(value, tensors) for value in items]
    return skeleton


def _seal(stated: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
