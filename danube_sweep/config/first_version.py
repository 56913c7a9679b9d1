"""How version 1 told trials apart: kept so that its folders are found, checked and used as ever."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.model_folder import architecture_keys
from danube_sweep.config.schema import Batching, Config, Model, RowLayout

DEFAULTS: dict[str, Any] = {"data.batching": Batching.bucketed, "data.order_seed": 0, "lora.alpha": 32.0}
"""Defaults of version 1 by field (`lora.alpha`) where today's differ: a default that changes gets a line here."""


def as_stated(config: Config) -> Config:
    """The trial in version 1's terms, where data.batching also decided the layout."""
    if config.data.layout is not RowLayout.flat:
        return config
    return replace(config, data=replace(config.data, batching=Batching.packed))


def weights_fingerprint(folder: Path) -> str:
    """Version 1's fingerprint of a folder of weights: a sample.

    Hashes config.json, each file's size and 64 KiB at 64 places spread over it, the header among them: a different
    training run differs at every place. The same files fingerprint alike as a hub snapshot and as a copied folder.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(architecture_keys(folder), sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            for place in range(64):
                stream.seek(max(size - 65536, 0) * place // 63)
                digest.update(stream.read(65536))
    return digest.hexdigest()[:32]


def source(model: Model, folder: Path) -> dict[str, Any]:
    """Version 1's identity of a pretrained backbone and its tokenizer."""
    if not folder.is_dir():
        return {"source": f"{model.path}@{model.revision or 'main'}", "tokenizer": None}
    tokenizer = [file_digest(file) for file in sorted(folder.glob("tokenizer.*"))]
    return {"source": weights_fingerprint(folder), "tokenizer": tokenizer}
