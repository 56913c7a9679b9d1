"""Which commit of a data set on the hub is meant: what a trial's identity and its rows go by."""

import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from danube_sweep.errors import DataError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_YES = {"1", "ON", "YES", "TRUE"}


def is_folder(path: str) -> bool:
    """Whether `data.path` is a folder here, and no hub name."""
    return Path(path).expanduser().is_dir()


def commit(path: str, revision: str | None) -> str:
    """The commit of a data set's branch, tag or commit, asked from the hub or, without a network, from the cache.

    Raises DataError, in one line, when there is none.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    if not _NAME.fullmatch(path):
        raise DataError(f"data.path={path}: no such folder; give a hub name (OWNER/NAME) or a folder that exists")
    found, problem = _asked(path, revision)
    if found is None:
        raise DataError(problem)
    return found


@lru_cache(maxsize=64)
def _asked(name: str, revision: str | None) -> tuple[str | None, str]:
    """The commit, or what is in the way: once a process, as every cell of a sweep asks."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    def card(local: bool) -> Path:
        return Path(hf_hub_download(name, "README.md", repo_type="dataset", revision=revision, local_files_only=local))

    try:
        if os.environ.get("HF_DATASETS_OFFLINE", "").upper() in _YES:
            raise ConnectionError("offline mode is enabled")
        found = HfApi().dataset_info(name, revision=revision, timeout=10).sha
        with suppress(OSError):  # it need not have one; with it the cache knows the commit when there is no network
            card(local=False)
        return found, ""
    except (RepositoryNotFoundError, HFValidationError):
        return None, f"data.path={name}: the hub has no such data set, or it needs a login; check the name"
    except RevisionNotFoundError:
        return None, f"data.revision={revision}: {name} has no such branch, tag or commit"
    except Exception:  # the errors of a lost connection are those of whatever HTTP library the hub's client has
        with suppress(OSError):
            return card(local=True).parent.name, ""
        return None, (
            f"data.path={name}: the hub cannot be reached and the cache does not know {revision or 'its main branch'}; "
            "load it once with a network, or give a folder by data.path"
        )
