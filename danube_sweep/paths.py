"""Where the packaged files are and where caches go."""

import logging
import os
import stat
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from danube_sweep.errors import UserError

log = logging.getLogger(__name__)


def conf_dir() -> Path:
    """The absolute folder of the config groups: the installed copy first, then the checkout's ../conf."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"danube_sweep is installed without its conf/ folder (looked beside {package})")


def cache_dir() -> Path:
    """The folder for tokens, tokenizers and quantised backbones: $DANUBE_SWEEP_CACHE, else the user's cache.

    Without a home it is a folder for temporary files, with a note. Raises UserError if others can write there.
    """
    if named := os.environ.get("DANUBE_SWEEP_CACHE"):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "danube_sweep"
    try:
        return Path.home() / ".cache" / "danube_sweep"
    except RuntimeError:  # no HOME, and no entry for the user
        return _cache_without_home(tempfile.gettempdir())


@lru_cache(maxsize=1)
def _cache_without_home(temporary: str) -> Path:
    # Anybody may make a folder there. A cache decides which folders count as made here, so it must be the user's alone.
    folder = Path(temporary) / f"danube_sweep-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    with suppress(FileNotFoundError):  # a cache that cannot be made is done without
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise UserError(f"{folder} is no private folder of this user; name one for caches by DANUBE_SWEEP_CACHE")
    log.warning("no home directory is known, so caches go to %s; DANUBE_SWEEP_CACHE names another folder", folder)
    return folder


def from_here(path: Path) -> Path:
    """The path as a command typed here would name it: relative where it lies below the working directory."""
    here = Path.cwd()
    for place in (path.resolve(), path.absolute()):
        if place.is_relative_to(here):
            return place.relative_to(here)
    return path
