"""The entry of the W&B agent, which starts one command per trial: the folder that its trial belongs in."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danube_sweep.composer import compose
from danube_sweep.config.from_environment import check_received
from danube_sweep.config.schema import Config, Tracking, WandbTracking
from danube_sweep.config.schema.states import State
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import BusyError, ConfigError, DanubeSweepError, Interrupted, UserError
from danube_sweep.storage.folder_names import SWEEPS
from danube_sweep.storage.redaction import redact
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.share.agent_command import TrialError, named_command, tell
from danube_sweep.sweeping.wandb_file.wandb_parameters import override_text

SWEEP_ID, PARAMETERS = "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"
"""Variables that the agent sets for its children: the sweep, and the file with the values chosen for this trial."""
DOOR = "wandb agent"
_UNSHARED = (
    "take it out of the sweep file's command, or start `wandb agent` without tracking.share, which trains one at a time"
)
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def under_agent() -> str | None:
    """The id of the sweep whose agent started this process; None without one.

    Raises ConfigError for an id that is no plain word: it names a folder.
    """
    sweep = os.environ.get(SWEEP_ID)
    if sweep and not _PLAIN.fullmatch(sweep):
        raise ConfigError(f"{SWEEP_ID}={sweep!r}: not the id of a sweep, which has letters, digits, - and _; unset it")
    return sweep or None


def refuse_multirun() -> None:
    """Raises ConfigError under an agent; to be called for a multirun."""
    if sweep := under_agent():
        raise ConfigError(
            f"-m: the agent of sweep {sweep} starts one trial at a time; remove -m from the sweep file's command"
        )


def check_parameters() -> None:
    """Raises ConfigError for a value from the server that sets more than a trial, or reads this environment."""
    for key, value in _parameters().items():
        if key.lstrip("+~").partition("/")[0].partition(".")[0] == "hydra":
            raise ConfigError(f"{key} belongs to Hydra and is no parameter of a sweep; take it out of the sweep's file")
        check_received(f"the sweep's parameter {key}", value)


def trial_words(config: Config, overrides: list[str], base: Path = SWEEPS) -> list[str]:
    """The overrides that put this trial into its folder in `base`/<sweep id>, and its run into the sweep's group.

    They leave out benchmarks on test splits, which must not choose among trials.

    The folder is the one of an earlier run of the trial if there was one: same hash. Raises ConfigError outside an
    agent, CheckpointError for a folder in use or from another version, DiskError.
    """
    sweep = under_agent()
    if sweep is None:
        raise ConfigError(f"{SWEEP_ID} is not set: this is no trial of the W&B agent; start it with `wandb agent`")
    folder = SweepFolder(base / sweep)
    settled = {} if folder.file.is_file() else _settled(config.tracking, sweep)
    with folder.locked():
        if not folder.file.is_file():
            folder.write({"door": DOOR, "settings": {}, "tracking": settled})
        group = folder.read().get("tracking", {}).get("group")
        [(entry, _)] = folder.add([(config, overrides, None)], shared=_fixed(overrides))
    words = [f"hydra.run.dir={entry.path}"]
    if isinstance(config.tracking, WandbTracking) and config.tracking.group is None and group is not None:
        words.append(f"tracking.group={override_text('tracking.group', group)}")
    if config.trainer.benchmark:  # test splits are for a winner, and an agent never knows of its last trial
        words.append("trainer.benchmark_test=false")
    return words


def shared_trial(words: Sequence[str]) -> bool:
    """Has the trial of these words trained by the executor that this machine's agents share, if that is asked for.

    False if it is not. Raises what `train_shared` raises, and ConfigError for a word that an executor cannot follow.
    """
    if under_agent() is None or any(word in ("-m", "--multirun") for word in words):  # which is refused later
        return False
    from danube_sweep.sweeping.share.executor_settings import settings_among
    from danube_sweep.sweeping.share.shared_trial import SHARE, is_shared, train_shared

    by_command = bool(os.environ.get(SHARE))
    if odd := next((word for word in words if word.startswith(("-", "hydra.run.dir="))), None):
        asked = [word.partition("=")[2].lower() for word in words if word.lstrip("+").startswith("tracking.share=")]
        if by_command or asked[-1:] in (["true"], ["1"], ["yes"], ["on"]):
            raise ConfigError(f"{odd}: an executor that trials share does not follow it; {_UNSHARED}")
        return False
    check_parameters()  # before anything of theirs is resolved
    overrides = list(words)
    config = compose(overrides)
    if not is_shared(config):
        if by_command:
            word = next((word for word in reversed(words) if word.startswith("tracking=")), "tracking")
            raise ConfigError(f"{word}: trials share an executor with tracking=wandb alone; {_UNSHARED}")
        return False
    settings = settings_among(words, _parameters())
    folder, *own = trial_words(config, overrides)
    train_shared(compose([*overrides, *own]) if own else config, Path(folder.partition("=")[2]).absolute(), settings)
    return True


def _settled(tracking: Tracking, sweep: str) -> dict[str, str]:
    # Asked once per sweep folder, by its first trial.
    if not isinstance(tracking, WandbTracking):
        return {}
    from danube_sweep.tracking import sweep_name

    return {"group": sweep_name(tracking, sweep, _say)}


def report(words: Sequence[str], error: BaseException, exit_code: int) -> None:
    """Tells the server of an error that came before the trial's run was open; does nothing outside an agent.

    `words` are the command's, of which only the settings of tracking are read: they may be what is wrong.
    """
    from danube_sweep.tracking import given_out, is_reported, report_unbegun

    given = dict(word.split("=", 1) for word in words if word.startswith("tracking") and "=" in word)
    if not given_out() or is_reported() or given.pop("tracking", "wandb") != "wandb":
        return
    mode, project = given.get("tracking.mode", "auto"), given.get("tracking.project", WandbTracking().project)
    tracking = WandbTracking(mode, project, given.get("tracking.entity"))
    match error:
        case BusyError() | Interrupted():
            state = State.preempted.value
        case UserError():
            state = State.invalid.value
        case _:
            state = str(getattr(error, "state", State.failed.value))
    try:
        report_unbegun(tracking, state, str(error), exit_code, _say)
    except DanubeSweepError as trouble:
        _say(f"W&B was not told of this error: {trouble}")


def tell_command(error: BaseException, said: str, exit_code: int) -> None:
    """Tells `danube-sweep agent` the error that ends a trial of its agents; does nothing under any other agent."""
    if (command := named_command()) is None or isinstance(error, BusyError | Interrupted):
        return
    chosen = {key: one["value"] for key, one in _parameters().items() if isinstance(one, dict) and "value" in one}
    point = " ".join(f"{key}={value}" for key, value in chosen.items())
    tell(command, TrialError(redact(point) or "a trial without parameters", said, exit_code))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _fixed(overrides: list[str]) -> list[str]:
    # The constants in the sweep file's command are the same for every trial and would only lengthen the folders' names.
    chosen = _parameters()
    return [one for one in overrides if chosen and one.lstrip("+~").partition("=")[0] not in chosen]


def _parameters() -> dict[str, Any]:
    try:
        chosen = yaml_of(Path(os.environ[PARAMETERS]))
    except (KeyError, OSError, Undecodable):  # a name is not worth a trial
        return {}
    return {str(key): value for key, value in chosen.items()} if isinstance(chosen, dict) else {}
