"""From a model's name to a local folder with its files."""

import errno
import os
from functools import lru_cache
from pathlib import Path

from danube_sweep.config.identity import NO_FOLDER, names_a_folder
from danube_sweep.config.schema import Model
from danube_sweep.errors import DiskError, ModelError
from danube_sweep.os_errors import is_full, number_of

FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def local_folder(model: Model) -> Path:
    """The folder of a pretrained model's files: the one named, or the hub's snapshot in the cache, fetched if need be.

    Raises ModelError, in one line, when there is no such folder or the hub cannot be reached and the cache has none.
    """
    path = str(model.path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if names_a_folder(path):
        raise ModelError(NO_FOLDER.format(path))
    return _snapshot(path, model.commit or model.revision)


@lru_cache(maxsize=8)
def _snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    way_out = "give a local folder by model.path=… or use model.init=random"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"model.path={name}: the hub has no such model, or it needs a login; {way_out}") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model.revision={revision}: {name} has no such branch, tag or commit") from error
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        if is_full(error):
            raise DiskError(
                f"model.path={name}: no space left to download it; free some space or set HF_HOME"
            ) from error
        if number_of(error) in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiskError(
                f"model.path={name}: the cache cannot be written ({os.strerror(number_of(error) or 0)}); set HF_HOME"
            ) from error
        revised = f" (model.revision={revision})" if revision else ""
        raise ModelError(
            f"model.path={name}{revised}: the hub cannot be reached and the cache has no copy; {way_out}"
        ) from error


def unusable(model: Model, what: str, error: BaseException) -> ModelError:
    """The error for a folder whose files do not do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__)[:160].rstrip(".")
    return ModelError(f"model.path={model.path}: the folder has no usable {what} ({reason}); give one that has")
