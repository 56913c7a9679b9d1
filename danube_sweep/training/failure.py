"""How a trial that ended badly is recorded in its result."""

import errno
from typing import Any

from safetensors import SafetensorError

from danube_sweep.config.schema.states import State
from danube_sweep.errors import DanubeSweepError, Interrupted, TrialFailed, UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The operating system's numbers for a disk, a quota or a file that is full."""


def failure(error: BaseException) -> dict[str, Any]:
    """The result's fields of a trial that ended badly; none for what leaves no result: a stop or a user's mistake."""
    match error:
        case _ if _disk_is_full(error):
            state = State.disk_full.value
        case Interrupted() | UserError():
            return {}
        case TrialFailed():
            state = error.state
        case _:
            state = State.failed.value
    said = str(error) if isinstance(error, DanubeSweepError) else f"{type(error).__name__}: {error}"
    return {"state": state, "error": said}


def _disk_is_full(error: BaseException) -> bool:
    """Whether the error, or what caused it, is the operating system's word that nothing more can be written."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if isinstance(seen, SafetensorError) and any(f"(os error {number})" in str(seen) for number in FULL):
            return True
        seen = seen.__cause__
    return False
