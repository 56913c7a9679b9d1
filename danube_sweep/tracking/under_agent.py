"""Under a W&B agent: the run that its sweep waits for, and the sweep's name."""

import os
from collections.abc import Callable
from threading import Thread
from typing import Final

from danube_sweep.config.schema import WandbTracking
from danube_sweep.storage.redaction import redact
from danube_sweep.tracking.wandb_server import server_problem

SWEEP_ID, RUN_ID, ENTITY, PROJECT = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_ENTITY", "WANDB_PROJECT"
"""What the agent tells its children."""
SHARED: Final = "DANUBE_SWEEP_SHARED"
"""Set where an executor trains for agents: the run of a trial is open in the process that handed it over."""
OFF: Final = ("offline", "disabled", "dryrun")

_opened: list[str] = []
"""The run given out, once this process has opened it."""


def given_out() -> bool:
    """Whether a W&B agent started this process, for a run whose id it has given out."""
    return bool(os.environ.get(SWEEP_ID) and os.environ.get(RUN_ID))


def note_opened() -> None:
    """The run given out is open: it ends with its trial."""
    _opened.append(os.environ.get(RUN_ID, ""))


def is_reported() -> bool:
    """Whether the run given out was opened by this process, so that its sweep knows how it ended."""
    return os.environ.get(RUN_ID, "") in _opened


def sweep_name(config: WandbTracking, sweep: str, say: Callable[[str], None]) -> str:
    """The name of a sweep, from its server; its id if that does not tell, with a line to `say`.

    Waits for `timeout_s` at most, and asks nobody where tracking is offline.
    """
    mode = os.environ.get("WANDB_MODE") if config.mode == "auto" else config.mode
    if mode in OFF:
        return sweep
    told: list[str] = []
    trouble = [f"no answer within tracking.timeout_s={config.timeout_s:g}"]

    def ask() -> None:
        try:
            if (problem := server_problem(config.timeout_s)) is not None:
                trouble[0] = problem
                return
            import wandb

            path = "/".join(filter(None, (os.environ.get(ENTITY), os.environ.get(PROJECT), sweep)))
            told.append(str(wandb.Api(timeout=max(1, round(config.timeout_s))).sweep(path).name))
        except Exception as error:  # no key, no network, a server without this sweep
            trouble[0] = " ".join(redact(str(error)).split())[:200] or type(error).__name__

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(config.timeout_s)
    if told:
        return told[0]
    say(f"W&B does not tell the name of sweep {sweep} ({trouble[0]}): its runs are grouped by the id")
    return sweep
