"""Where the packaged files are and where caches go."""

import os
from pathlib import Path


def conf_dir() -> Path:
    """The absolute folder of the config groups: the installed copy first, then the checkout's ../conf."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"danube_sweep is installed without its conf/ folder (looked beside {package})")


def cache_dir() -> Path:
    """The folder for tokens, tokenizers and quantised backbones: $DANUBE_SWEEP_CACHE, else the user's cache."""
    named = os.environ.get("DANUBE_SWEEP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "danube_sweep"


def from_here(path: Path) -> Path:
    """The path as a command typed here would name it: relative where it lies below the working directory."""
    here = Path.cwd()
    for place in (path.resolve(), path.absolute()):
        if place.is_relative_to(here):
            return place.relative_to(here)
    return path
