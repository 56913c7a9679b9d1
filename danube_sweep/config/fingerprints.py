"""What a file's content, or a folder of weights, is known by."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from danube_sweep.errors import DataError, ModelError


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
    digest.update(json.dumps(architecture_keys(config), sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            for place in range(64):
                stream.seek(max(size - 65536, 0) * place // 63)
                digest.update(stream.read(65536))
    return digest.hexdigest()[:32]


def architecture_keys(config: Path) -> dict[str, Any]:
    """The keys of a config.json that count. Raises ModelError for a damaged one."""
    if not config.is_file():
        return {}
    try:
        described = dict(json.loads(config.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ModelError(f"model.path: {config} is damaged; download or save the model again") from error
    return {key: value for key, value in described.items() if key != "transformers_version" and key[:1] != "_"}
