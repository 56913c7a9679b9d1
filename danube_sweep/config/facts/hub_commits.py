"""The commit of a data set or model on the hub, which decides a trial's identity, rows and weights."""

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from danube_sweep.errors import DataError, ModelError

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})")
_YES = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class _Kind:
    """A kind of repository; with `card`, one of its files, the cache knows the commit when there is no network."""

    repo_type: str
    field: str
    thing: str
    card: str
    way_out: str


_DATA: Final = _Kind(
    "dataset", "data", "data set", "README.md", "load it once with a network, or give a folder as data.path"
)
_MODEL: Final = _Kind(
    "model", "model", "model", "config.json", "give a local folder by model.path=… or use model.init=random"
)


def is_folder(path: str) -> bool:
    """Whether a path is a folder here, and no hub name."""
    return Path(path).expanduser().is_dir()


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit, which never moves."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def commit(path: str, revision: str | None) -> str:
    """The commit of a data set's branch, tag or commit, asked from the hub or, without a network, from the cache.

    Raises DataError, in one line, when there is none.
    """
    if revision is not None and is_commit(revision):
        return revision
    if not _NAME.fullmatch(path):
        raise DataError(f"data.path={path}: no such folder; give a hub name (OWNER/NAME) or a folder that exists")
    found, problem = _asked(_DATA, path, revision)
    if found is None:
        raise DataError(problem)
    return found


def model_commit(path: str, revision: str | None) -> str:
    """The same of a model. Raises ModelError, in one line, when there is none."""
    if revision is not None and is_commit(revision):
        return revision
    found, problem = _asked(_MODEL, path, revision)
    if found is None:
        raise ModelError(problem)
    return found


def known_commit(path: str, revision: str | None) -> str | None:
    """The commit of a model's revision; None for a folder, and where it cannot be had."""
    if is_folder(path) or not _NAME.fullmatch(path):
        return None
    with suppress(ModelError):
        return model_commit(path, revision)
    return None


def cached_folder(path: str, commit: str) -> Path | None:
    """The folder of a model's commit in the hub's cache, if it was downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        card = try_to_load_from_cache(path, _MODEL.card, revision=commit)
        return Path(card).parent if isinstance(card, str) else None
    return None


def snapshot_of(folder: Path) -> tuple[str, str] | None:
    """Name and commit of the model whose download a folder of the hub's cache is."""
    found = _SNAPSHOT.fullmatch("/".join(folder.absolute().parts[-3:]))
    return (f"{found[1]}/{found[2]}", found[3]) if found else None


@lru_cache(maxsize=64)
def _asked(kind: _Kind, name: str, revision: str | None) -> tuple[str | None, str]:
    """The commit, or the error: looked up once per process, as every cell of a sweep asks."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def card(local: bool) -> Path:
        return Path(
            hf_hub_download(name, kind.card, repo_type=kind.repo_type, revision=revision, local_files_only=local)
        )

    where = f"{kind.field}.path={name}"
    try:
        if kind is _DATA and os.environ.get("HF_DATASETS_OFFLINE", "").upper() in _YES:
            raise OfflineModeIsEnabled("offline mode is enabled")
        found = HfApi().repo_info(name, repo_type=kind.repo_type, revision=revision, timeout=10).sha
        with suppress(OSError):  # it need not have one; with it the cache knows the commit when there is no network
            card(local=False)
        return found, ""
    except (RepositoryNotFoundError, HFValidationError):
        return None, f"{where}: the hub has no such {kind.thing}, or it needs a login; check the name"
    except RevisionNotFoundError:
        return None, f"{kind.field}.revision={revision}: {name} has no such branch, tag or commit"
    except Exception as error:  # of a lost connection they are those of whatever HTTP library the hub's client has
        with suppress(OSError):
            cached = card(local=True).parent.name
            if not isinstance(error, OfflineModeIsEnabled):  # which was asked for
                log.warning("%s: the hub cannot be reached; using commit %s from the cache", where, cached)
            return cached, ""
        asked = revision or "its main branch"
        return None, f"{where}: the hub cannot be reached and the cache does not know {asked}; {kind.way_out}"
