"""The settings of a sweep that an executor of agents follows, from a command or from the sweep file."""

from collections.abc import Collection, Sequence
from typing import Final

from danube_sweep.config.schema import NoPruner, Sweep
from danube_sweep.config.stored import load_sweep, plain_sweep
from danube_sweep.errors import ConfigError

TAKEN: Final = tuple(
    f"sweep.{name}"
    for name in ("slots", "pack", "stagger_s", "timeout_h", "stall_s", "grace_s", "disk_wait_s", "on_oom")
)
"""The sweep's settings that an executor of agents uses."""


def settings_of(changes: Sequence[str]) -> Sweep:
    """The sweep's settings with these changes (sweep.FIELD=VALUE). Raises ConfigError, also for one without effect."""
    settings, _ = load_sweep(plain_sweep(Sweep(), NoPruner()), list(changes))
    if without := without_effect(changes):
        raise ConfigError(without)
    return settings


def without_effect(changes: Sequence[str]) -> str | None:
    """Why the first of the changes that an executor does not use has no effect; None if it uses all."""
    for change in changes:
        if change.partition("=")[0] not in TAKEN:
            return (
                f"{change}: has no effect on agents, as W&B's server draws, stops and ranks their trials; the sweep "
                f"file sets that, and the executor takes {', '.join(TAKEN)}"
            )
    return None


def settings_among(words: Sequence[str], parameters: Collection[str]) -> list[str]:
    """The settings of a sweep among the words of a trial's command, as changes.

    Raises ConfigError for one that the server chooses per trial, as all trials share the executor, and for a wrong one.
    """
    changes = [word.lstrip("+") for word in words if word.lstrip("+").startswith("sweep.")]
    for change in changes:
        key = change.partition("=")[0]
        if key in parameters:
            raise ConfigError(f"{key} is the executor's, which trials share; take it from parameters into command")
    settings_of([change for change in changes if without_effect([change]) is None])
    return changes
