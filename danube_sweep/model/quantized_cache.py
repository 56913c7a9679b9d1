"""Quantised backbones on disk: a machine quantises each once and reads it back as it was.

An entry is a folder of the cache, named by everything that decides its bytes. Like a checkpoint, it is sealed with the
hash of its file, exists complete or not at all, and is never a pickle.
"""

import hashlib
import importlib.metadata
import json
import logging
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from danube_sweep import paths
from danube_sweep.config.schema import Precision
from danube_sweep.errors import CheckpointError
from danube_sweep.model import precision as precisions
from danube_sweep.storage import checkpoint
from danube_sweep.storage.caches import alone
from danube_sweep.storage.files import remove_abandoned

log = logging.getLogger(__name__)

CACHE_VERSION = 1
"""Raise it when the same source is stored in other bytes."""
WEIGHTS = "model.safetensors"
SPARE_BYTES = 2**30
"""Bytes that stay free on the disk."""

UNREADABLE = (CheckpointError, OSError, KeyError)
"""What a damaged entry raises."""

Loaded = tuple[PreTrainedModel, str]
"""A model and the fingerprint of its source."""


def entry(source: Any, precision: Precision, device: torch.device) -> Path:
    """The folder of the backbone that comes of quantising `source`, plain JSON that tells it from any other."""
    asked = precisions.quantization_config(precision)
    assert asked is not None
    installed = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")}
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    meaning = [CACHE_VERSION, source, asked.to_dict(), device.type, machine, installed]
    digest = hashlib.sha256(json.dumps([*meaning, str(precisions.weight_dtype(precision))], sort_keys=True).encode())
    return paths.cache_dir() / "quantised" / digest.hexdigest()[:32]


def read_or_quantise(
    folder: Path, config: PretrainedConfig, kind: Any, options: dict[str, Any], quantise: Callable[[], Loaded]
) -> Loaded:
    """The result of `quantise`: read from the entry `folder` as a model of auto class `kind`, or made and stored there.

    While one process makes an entry, others wait for it. A damaged entry is made again; one that cannot be written is
    logged and skipped.
    """
    with suppress(*UNREADABLE):
        return _read(folder, config, kind, options)
    with alone(folder):
        try:
            return _read(folder, config, kind, options)
        except UNREADABLE:
            if folder.is_dir():
                log.warning("%s is damaged; quantising again", folder)
        made = quantise()
        _keep(folder, *made)
        return made


def _read(folder: Path, config: PretrainedConfig, kind: Any, options: dict[str, Any]) -> Loaded:
    manifest = checkpoint.read_manifest(folder)
    # Copied, since a mapped file does not have the alignment that arithmetic on fresh tensors has.
    tensors = {name: value.clone() for name, value in checkpoint.load_tensors(folder / WEIGHTS).items()}
    config.quantization_config = options["quantization_config"].to_dict()
    with torch.device("meta"):
        model = type(kind.from_config(config, trust_remote_code=False))
    rest = {name: value for name, value in options.items() if name != "quantization_config"}
    return model.from_pretrained(None, config=config, state_dict=tensors, **rest), str(manifest["source"])


def _keep(folder: Path, model: PreTrainedModel, fingerprint: str) -> None:
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    needed = sum(value.nbytes for value in tensors.values())
    try:
        remove_abandoned(folder)  # the lock is ours
        free = shutil.disk_usage(folder.parent).free
        if free < needed + SPARE_BYTES:
            log.warning("%s has %.1f GiB left; the quantised backbone was not cached", folder.parent, free / 2**30)
            return
        checkpoint.write_checkpoint(
            folder, {"source": fingerprint}, lambda place: checkpoint.save_tensors(tensors, place / WEIGHTS)
        )
    except OSError as error:
        log.warning("the quantised backbone was not cached: %s", error)
