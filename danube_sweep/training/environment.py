"""The place and the means of a run, as in environment.json: versions, machine, git state."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import Any

import torch

from danube_sweep import __version__
from danube_sweep.config import offered_options
from danube_sweep.training.device import describe_device

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "hydra-core", "wandb")


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result, with those that offer heads and optimizers."""
    # The metadata of an editable install may be older.
    return {"danube_sweep": __version__, **installed_packages(), **offered_options.packages()}


@cache
def installed_packages() -> dict[str, str]:
    """Those of PACKAGES that are installed, with their versions."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine, device, git state and command line. Holds no environment variable."""
    return {
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"host": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
        "device": describe_device(device),
        "git": _git(),
        "command": sys.argv,
    }


def _git() -> dict[str, Any] | None:
    # Remotes can hold credentials and stay out.
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
