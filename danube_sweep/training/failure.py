"""How a trial that ended badly is recorded in its result."""

from typing import Any

from danube_sweep.config.schema.states import State
from danube_sweep.errors import DanubeSweepError, Dismissed, Interrupted, Paused, TrialFailed, UserError
from danube_sweep.os_errors import is_full


def failure(error: BaseException) -> dict[str, Any]:
    """The result's fields of a trial that ended badly.

    Empty for an end without a result: a stop, a pause or a user's mistake.
    """
    match error:
        case _ if is_full(error):
            state = State.disk_full.value
        case Interrupted() | Dismissed() | Paused() | UserError():
            return {}
        case TrialFailed():
            state = error.state
        case _:
            state = State.failed.value
    said = str(error) if isinstance(error, DanubeSweepError) else f"{type(error).__name__}: {error}"
    return {"state": state, "error": said}
