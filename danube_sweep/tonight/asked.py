"""What somebody asked of a night: the words of the command, checked."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from danube_sweep.composer import first_swept
from danube_sweep.errors import CheckpointError, ConfigError

SWEEPS_OWN = ("sweep.", "pruner")
"""Fields of the sweep; all others are of its trials."""
OURS = (
    "sweep.budget_h",
    "sweep.deadline_h",
    "sweep.confirm",
    "sweep.score_test",
    "sweep.dry_run",
    "trainer.benchmark_test",
)
"""Fields that follow from the hours, or belong to a stage."""


@final
@dataclass(frozen=True)
class Asked:
    """A night as it was asked for; paths as they were typed."""

    train: str
    test: str
    hours: float
    models: list[str]
    """Options of `model`, hub names or folders; empty for those that follow from the device."""
    like: str | None
    overrides: list[str]

    @property
    def of_trials(self) -> list[str]:
        return [word for word in self.overrides if not word.startswith(SWEEPS_OWN)]

    @property
    def of_sweep(self) -> list[str]:
        return [word for word in self.overrides if word.startswith(SWEEPS_OWN)]

    @property
    def same_night(self) -> dict[str, Any]:
        """What must be equal for a night to go on: all but the hours and the form of the predictions."""
        return {name: value for name, value in asdict(self).items() if name not in ("hours", "like")}


def check_asked(asked: Asked) -> None:
    """Raises ConfigError for hours and overrides that make no night, in one line."""
    if not (math.isfinite(asked.hours) and asked.hours > 0):
        raise ConfigError(f"--hours must be above 0, got {asked.hours:g}")
    for word in asked.overrides:
        field, equals, value = word.partition("=")
        if not equals or word.startswith(("+", "~", "hydra.", "hydra/", "experiment=", "-")):
            raise ConfigError(f"{word}: tonight takes settings of a trial or sweep, FIELD=VALUE; leave it out")
        if field in ("data.path", "data.test_path"):
            raise ConfigError(f"{word}: give the file by itself: danube-sweep tonight FILE --test FILE")
        if field in ("model", "model.path"):
            raise ConfigError(f"{word}: give models by --models {value}")
        if field in OURS:
            raise ConfigError(f"{word}: tonight sets it from --hours and the stage; leave it out")
        if field in ("seed", "data.fold"):
            raise ConfigError(f"{word}: tonight compares settings on one split and seed; leave it out")
    if (swept := first_swept(asked.overrides)) is not None:
        raise ConfigError(f"{swept} names several values: give one, or leave it out, then tonight chooses the values")
    _check_files(asked)


def _check_files(asked: Asked) -> None:
    named = [("FILE", asked.train), ("--test", asked.test), *([("--like", asked.like)] if asked.like else [])]
    for option, name in named:
        if not Path(name).expanduser().is_file():
            raise CheckpointError(f"{option} {name}: no such file; give a csv, jsonl or parquet file")


def asked_of(stored: dict[str, Any]) -> Asked:
    """What night.json keeps. Raises CheckpointError for a damaged one."""
    try:
        words: Sequence[str] = stored["overrides"]
        like = stored["like"]
        return Asked(
            str(stored["train"]),
            str(stored["test"]),
            float(stored["hours"]),
            [str(one) for one in stored["models"]],
            None if like is None else str(like),
            [str(one) for one in words],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("night.json is damaged; start in another folder, by -o") from error
