"""Where the agents' trials of a sweep meet their executor: a socket in a folder of this user alone.

The path of a socket ends at 108 bytes and a network file system has none, so it lies in the user's runtime folder. The
sweep's folder names it, in executor.json.
"""

import os
import stat
from hashlib import sha256
from pathlib import Path
from platform import node
from typing import Final

from danube_sweep.decoding import Undecodable, json_of
from danube_sweep.errors import ConfigError

EXECUTOR: Final = "executor.json"
"""The file of a sweep's folder that names the socket and the process."""
RUNTIME: Final = "XDG_RUNTIME_DIR"
MOST_BYTES: Final = 107
"""Of a socket's path, without the zero at its end."""


def runtime_folder() -> Path:
    """The folder of sockets of this user, made if it is missing, with access for nobody else.

    Raises ConfigError for one that belongs to another user or that others may enter.
    """
    named, user = os.environ.get(RUNTIME), os.getuid()
    folder = Path(named, "danube-sweep") if named and os.access(named, os.W_OK) else Path(f"/tmp/danube-sweep-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(f"tracking.share: {folder} cannot be made: {error.strerror}; set {RUNTIME}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"tracking.share: {folder} is not a folder of this user alone (mode 0700); remove it or set {RUNTIME}"
        )
    return folder


def socket_of(sweep: Path) -> Path:
    """The path of the socket of a sweep's executor. Raises ConfigError."""
    path = runtime_folder() / f"{sha256(os.fsencode(sweep.resolve())).hexdigest()[:16]}.sock"
    if len(os.fsencode(path)) > MOST_BYTES:
        raise ConfigError(f"tracking.share: {path} is too long for a socket; set {RUNTIME} to a short folder")
    return path


def named_socket(sweep: Path) -> Path | None:
    """The socket that the sweep's executor has stated in its folder, if that process is of this machine."""
    try:
        found = json_of(sweep / EXECUTOR)
    except (OSError, Undecodable):
        return None
    match found:
        case {"socket": str(path), "host": str(host)} if host == node():
            return Path(path)
    return None
