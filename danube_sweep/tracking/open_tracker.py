"""A tracker from a config: online, offline or not at all, and never a prompt."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from danube_sweep.config.schema import NoTracking, TensorboardTracking, Tracking, WandbTracking
from danube_sweep.config.validate.check_tracker import check_package
from danube_sweep.errors import ConfigError
from danube_sweep.storage.redaction import redact, redacted
from danube_sweep.tracking.tensorboard_sending import TensorboardRun
from danube_sweep.tracking.under_agent import RUN_ID, SHARED, given_out, note_opened
from danube_sweep.tracking.wandb_sending import Tracker, WandbRun, reason, upload_later
from danube_sweep.tracking.wandb_server import key_problem, unreached

ADAPTER_WAIT = 30
"""How many times `timeout_s` the end of a run waits for its adapter: tens of megabytes over a home's line."""

SERVICE_END_S = 1.0
"""How long wandb's service process may take to end; it takes a tenth of that."""

_WITH_A_KEY = "run `wandb login`, set WANDB_API_KEY, or do without by tracking=none"

_unreachable: dict[str, str] = {}
"""Server -> why it could not be reached: of a pack's trials only the first waits for the timeout."""


def open_tracker(
    config: Tracking,
    *,
    run_id: str,
    run_name: str,
    folder: Path,
    resolved: Mapping[str, Any],
    say: Callable[[str], None],
    step: int = 0,
) -> Tracker:
    """The tracker that `config` describes. W&B's files lie in `folder`/wandb, and it never prompts. `step` is that of
    the run's end for TensorBoard if this tracker logs no row.

    Without a key, a network or a willing server it logs offline, soon after `timeout_s` seconds. `say` then gets the
    reason and the command that uploads the run later. Raises ConfigError if the wandb package or a requested key is
    missing, and for names that W&B refuses.
    """
    check_package(config)
    match config:
        case NoTracking():
            return WandbRun(None, WandbTracking(), say)
        case TensorboardTracking():
            return TensorboardRun(folder, resolved, say, step)
        case WandbTracking(mode="disabled"):
            return WandbRun(None, config, say)
        case WandbTracking() if os.environ.get(SHARED):
            return WandbRun(None, config, say)
        case WandbTracking():
            if config.share and not given_out():
                say("tracking.share=true has no effect here: no W&B agent has started this trial")
            stop = Event()
            named: dict[str, Any] = {"run_id": run_id, "run_name": run_name, "folder": folder, "resolved": resolved}
            start = partial(_start, config, stop=stop, **named)
            run = _open(config.mode, start, say)
            if run is not None:
                note_opened()
            return WandbRun(run, config, say, stop)
    raise TypeError(f"no tracker for {type(config).__name__}")


def report_unbegun(config: WandbTracking, state: str, error: str, exit_code: int, say: Callable[[str], None]) -> None:
    """Opens and ends the run that the agent has given out for a trial that could not begin, so that its sweep knows.

    Does nothing where tracking is offline: there is nobody to tell.
    """
    try:
        import wandb
    except ImportError:
        return
    settings = wandb.setup(wandb.Settings(silent=True)).settings
    asked = settings.mode if config.mode == "auto" else config.mode
    if _mode_and_why(asked, config.mode, settings.base_url)[0] != "online":
        return
    run = os.environ[RUN_ID]
    tracker = open_tracker(config, run_id=run, run_name=run, folder=Path.cwd(), resolved={}, say=say)
    tracker.summary({"state": state, "error": error})
    tracker.finish(exit_code)


def _open(asked: str, start: Callable[[str], Any], say: Callable[[str], None]) -> Any:
    try:
        import wandb
    except ImportError as error:
        if asked != "auto":
            raise ConfigError(
                f"tracking.mode={asked}: wandb cannot be imported ({reason(error)}); install it again, or take "
                "tracking=none"
            ) from error
        say("The wandb package is missing (pip install wandb): the results are in the run folder alone")
        return None
    try:
        return _online_or_offline(asked, start, say)
    except ConfigError:
        raise
    except wandb.errors.UsageError as error:
        raise ConfigError(f"tracking: {reason(error)}; correct it or take tracking=none") from error
    except Exception as error:  # the service process does not start, the folder is on a full disk, …
        say(f"W&B does not start ({reason(error)}): the results are in the run folder alone")
        return None


def _online_or_offline(asked: str, start: Callable[[str], Any], say: Callable[[str], None]) -> Any:
    import wandb

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    mode, why = _mode_and_why(settings.mode if asked == "auto" else asked, asked, settings.base_url)
    if mode == "online" and settings.base_url not in _unreachable:
        try:
            return start("online")
        except wandb.errors.UsageError:
            raise
        except Exception as error:  # CommError, TimeoutError, and the errors of a proxy or a broken server
            _unreachable[settings.base_url] = unreached(settings.base_url, reason(error))
            # The failed start keeps its id "in use" until wandb's service process ends, and that would also end this
            # process's other runs. While there are any, this trial has no W&B run.
            if wandb.setup().most_recent_active_run:
                raise
            _end_service()
    if mode == "disabled":
        return None
    run = start("offline")
    if mode == "online":
        why = f"W&B cannot be reached ({_unreachable[settings.base_url]})"
    if why:
        say(f"{why}; logging offline into {run.settings.sync_dir}, {upload_later(run.settings.sync_dir)}")
    return run


def _end_service() -> None:
    # Once in some hundred times it waits for the server that just did not come: then it is left to end by itself.
    def end() -> None:
        import wandb

        with suppress(Exception, SystemExit):
            wandb.teardown()

    thread = Thread(target=end, daemon=True)
    thread.start()
    thread.join(SERVICE_END_S)


def _mode_and_why(mode: str, asked: str, base_url: str) -> tuple[str, str | None]:
    if mode in ("disabled", "offline", "dryrun"):
        return mode, None
    if (problem := key_problem(base_url)) is None:
        return "online", None
    # wandb's own mode is also "online" when nobody chose one.
    for source, value in {"tracking.mode": asked, "WANDB_MODE": os.environ.get("WANDB_MODE")}.items():
        if value == "online":
            raise ConfigError(f"{source}=online: {problem}; {_WITH_A_KEY}, or give tracking.mode=offline")
    return "offline", f"W&B: {problem} ({_WITH_A_KEY})"


def _start(
    config: WandbTracking, mode: Any, *, run_id: str, run_name: str, folder: Path, resolved: Any, stop: Event
) -> Any:
    import wandb

    # Only our results leave: no command line, environment, git state, host, packages or console.
    quiet: dict[str, Any] = {"silent": True, "console": "off", "symlink": False, "save_code": False}
    quiet |= {"disable_code": True, "disable_git": True, "x_save_requirements": False, "x_disable_viewer": True}
    quiet |= {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
    # A server that is gone costs a trial one of the two waits: if it did not come at the start, the end does not wait
    # for it.
    finish_timeout = config.timeout_s * (ADAPTER_WAIT if config.log_adapter else 1)
    bounds = {"init_timeout": config.timeout_s, "finish_timeout": finish_timeout, "finish_timeout_raises": True}
    # By itself it would interrupt the process, and with it every trial of the pack. A method would be copied.
    stops = {"stop_fn": lambda: stop.set()}
    return wandb.init(
        id=None if given_out() else run_id,  # None takes the agent's, for which its sweep waits
        resume="allow",
        reinit="create_new",
        mode=mode,
        dir=folder,
        project=config.project,
        entity=config.entity,
        group=config.group,
        tags=config.tags,
        name=redact(run_name),
        # Under its own key: a sweep's parameter named like a group would replace the group's whole dict.
        config={"trial": redacted(resolved, shown=True)},
        settings=wandb.Settings(**quiet, **bounds, **stops),
    )
