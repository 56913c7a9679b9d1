"""Files that are written whole, without secrets, or not at all."""

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danube_sweep.errors import CheckpointError, DiskError


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
