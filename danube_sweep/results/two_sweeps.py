"""Two sweep folders as one: a row belongs to one of them, and is compared with the rows of both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from danube_sweep.errors import CheckpointError
from danube_sweep.results.rank import objectives_of_sweep
from danube_sweep.results.trial_results import StoredTrial, read_trials

KEY: Final = "from_sweep"
"""The key that names a row's sweep in a ranking of two."""


def read_two(paths: Sequence[Path]) -> tuple[list[StoredTrial], list[str]]:
    """The trials of two sweeps, each with its sweep's name under the key `from_sweep`, and the notes on their files.

    Raises CheckpointError for a folder that is not a sweep, and for one given twice.
    """
    first, second = paths
    if first.resolve() == second.resolve():
        raise CheckpointError(f"{second} is given twice; give two sweeps, or one")
    trials, notes = [], []
    for path, name in zip(paths, _names(first, second), strict=True):
        found, said = read_trials(path)
        trials += [_named(trial, name) for trial in found]
        notes += [f"{name}: {line}" for line in said]
    ours, theirs = map(objectives_of_sweep, paths)
    if ours != theirs:
        notes.append(f"{second} was to rank by {_spoken(theirs)}; here both are ranked by {_spoken(ours)}")
    return trials, notes


def _spoken(objectives: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{metric} ({goal})" for metric, goal in objectives)


def _names(first: Path, second: Path) -> tuple[str, str]:
    """The last parts of both paths, as many as tell them apart."""
    ours, theirs = first.resolve().parts, second.resolve().parts
    count = next(
        (count for count in range(1, max(len(ours), len(theirs))) if ours[-count:] != theirs[-count:]), len(ours)
    )
    return "/".join(ours[-count:]), "/".join(theirs[-count:])


def _named(trial: StoredTrial, name: str) -> StoredTrial:
    overrides = None if trial.overrides is None else {KEY: name, **trial.overrides}
    config = {KEY: name, **trial.config} if trial.config else {}
    return replace(trial, sweep=name, overrides=overrides, config=config)
