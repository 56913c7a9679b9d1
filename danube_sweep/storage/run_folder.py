"""The folder of a run, and its files.

config.yaml        the resolved config
environment.json   versions, device, git state, command
metrics.csv        a row per step and per validation
log.txt            the lines of the terminal
checkpoints/       while it trains: the last step and the best one
checkpoints.json   with storage.checkpoints: where they are instead
trial.json         in a sweep: number, overrides, hash
attempts.jsonl     in a sweep: a line per attempt, how it ended and how long it took
adjusted.json      in a sweep: the micro-batch that an out-of-memory trial was given instead
adapter/ | model/  when finished: the trained weights, ready for PEFT | transformers
predictions.parquet   the answers to the validation rows, if there are any
decisions.json     by danube-sweep decide: how answers become labels
refit.json         of a refit: the scores of its settings before
soup.json          by danube-sweep soup: the trials whose average it is
paused.json        in a sweep: the future result.json of a trial that is paused
result.json        last, atomic, for every terminal state
.danube_sweep      the marker of our folders; ownership.py has every name
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danube_sweep.config.identity import HASH_VERSION, other_hashes, trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import MICRO_BATCH
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.field_types import ADJUSTED, ENVIRONMENT, Kinds, misfit, misfit_of_result
from danube_sweep.storage.field_types import TRIAL as TRIAL_FIELDS
from danube_sweep.storage.files import read_json
from danube_sweep.storage.folder_names import RUNS
from danube_sweep.storage.locks import is_held

PLACE = "path"
"""The key of checkpoints.json."""
CHECKPOINTS = "checkpoints"
TRIAL = "trial.json"
"""The file that makes a run's folder a trial of its sweep."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Every write is whole or not at all."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def elsewhere(self) -> Path:
        return self.path / "checkpoints.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints. Raises CheckpointError for a damaged checkpoints.json."""
        if not self.elsewhere.is_file():
            return self.path / CHECKPOINTS
        place = read_json(self.elsewhere).get(PLACE)
        if not isinstance(place, str):
            raise CheckpointError(f"{self.elsewhere} is damaged; delete it to train the trial from its start")
        return Path(place)

    @property
    def has_checkpoints(self) -> bool:
        """Whether it has trained for some time and has not ended."""
        return self.elsewhere.is_file() or (self.path / CHECKPOINTS).is_dir()

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def paused(self) -> Path:
        return self.path / "paused.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def claim(self) -> Path:
        return self.path / ".claim"

    @property
    def trial(self) -> Path:
        return self.path / TRIAL

    @property
    def attempts(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def adjusted(self) -> Path:
        return self.path / "adjusted.json"

    def micro_batch(self, config: Config) -> int:
        """Rows of a forward pass: the config's, or those that the sweep gave the trial after it ran out of memory.

        Raises CheckpointError for a damaged adjusted.json.
        """
        if not self.adjusted.is_file():
            return int(config.trainer.micro_batch)
        found = read_json(self.adjusted)
        rows = found.get(MICRO_BATCH, config.trainer.micro_batch)
        if misfit(found, ADJUSTED) or not rows >= 1 or config.trainer.effective_batch % rows:
            raise CheckpointError(f"{self.adjusted} is damaged: {MICRO_BATCH}={str(rows)[:60]}")
        return int(rows)

    def hash_version(self) -> int:
        """The version of the rules behind the hash in this folder; today's for a folder without a hash.

        A damaged file is skipped, since the other one has the same version.
        """
        stated = self.stated()
        return HASH_VERSION if stated is None else int(stated.get("hash_version", 1))

    def stated(self) -> dict[str, Any] | None:
        """The folder's statement on its trial: its hash as `trial`, its other names as `also`, and `hash_version`.

        It is environment.json, or trial.json if that is missing or damaged. None if neither can be read.
        """
        return self.stated_environment() or self.stated_trial()

    def stated_environment(self) -> dict[str, Any] | None:
        """The content of environment.json; None if it is missing or damaged."""
        return readable(self.environment, ENVIRONMENT)

    def stated_trial(self) -> dict[str, Any] | None:
        """The content of trial.json, the hash also as `trial`; None if it is missing or damaged."""
        found = readable(self.trial, TRIAL_FIELDS)
        return None if found is None else {**found, "trial": found.get("hash")}

    def hash_of(self, config: Config) -> str:
        """The hash of a trial by the rules of this folder; the folder's own hash, if the trial is its own by any name.

        A hub backbone can be named by its commit or by the tensors of its download, and a run states the hashes of
        both. Raises UserError if a file that the trial names is missing.
        """
        version = self.hash_version()
        own = trial_hash(config, version)
        stored = self.stated() or {}
        also = stored.get("also")
        others = also if isinstance(also, list) else []  # of an edited file
        names = {stored.get("trial"), *(one for one in others if isinstance(one, str))}
        if own in names or (version == HASH_VERSION and stored and not names.isdisjoint(other_hashes(config))):
            return str(stored.get("trial", own))
        return own

    def read_result(self) -> dict[str, Any] | None:
        """The result of an ended run; None if it is running, interrupted or new.

        Raises CheckpointError for a damaged file.
        """
        if not self.result.is_file():
            return None
        try:
            found = read_json(self.result)
            if (wrong := misfit_of_result(found)) is not None:
                raise CheckpointError(f"{self.result} is damaged ({wrong})")
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # another process has just begun to run it again
                return None
            if isinstance(error.__cause__, OSError):
                raise
            raise CheckpointError(f"{error}; delete it to run the trial again") from error
        return found

    def result_fields(self) -> dict[str, Any]:
        """`read_result`, or {} if the file is missing or damaged: for callers that need not report the damage."""
        with suppress(CheckpointError):
            return self.read_result() or {}
        return {}

    def read_paused(self) -> dict[str, Any] | None:
        """The result that a paused trial will have if it stays paused; None for a trial that is not paused.

        Raises CheckpointError for a damaged file.
        """
        if not self.paused.is_file() or self.result.is_file():
            return None
        found = read_json(self.paused)
        if (wrong := misfit_of_result(found)) is not None:
            raise CheckpointError(f"{self.paused} is damaged ({wrong})")
        return found

    def paused_fields(self) -> dict[str, Any]:
        """`read_paused`, or {} if the file is missing or damaged."""
        with suppress(CheckpointError):
            return self.read_paused() or {}
        return {}


def readable(file: Path, kinds: Mapping[str, Kinds]) -> dict[str, Any] | None:
    """The object in a JSON file of ours; None if it is missing or damaged."""
    with suppress(CheckpointError):
        found = read_json(file)
        return found if misfit(found, kinds) is None else None
    return None


def interrupted_run(identity: str) -> Path | None:
    """The newest run of the trial in outputs/ that was interrupted and that no process trains now."""
    for folder in sorted(RUNS.glob(f"*/*-{identity[:8]}"), reverse=True):
        found = RunFolder(folder)
        begun = found.environment.is_file() and not found.result.is_file()
        if begun and _trial_of(found.environment) == identity and not is_held(found.lock):
            return folder
    return None


def _trial_of(environment: Path) -> Any:
    with suppress(CheckpointError):  # a damaged one names no trial
        return read_json(environment).get("trial")
    return None


def remove_if_empty(folder: Path) -> None:
    """Removes a run's folder that was made before a mistake was found, and the folders above it, if they are empty."""
    with suppress(OSError):
        place, here = folder.resolve(), Path.cwd()
        if not here.is_relative_to(place):
            place.rmdir()
        while (place := place.parent) != here and place.is_relative_to(here):
            place.rmdir()


def number_at(result: Mapping[str, Any], address: str) -> float | None:
    """The finite number in a result at an address like measured/seconds/train; None without one."""
    node: Any = result
    for word in address.split("/"):
        node = node.get(word) if isinstance(node, Mapping) else None
    if isinstance(node, bool) or not isinstance(node, int | float):
        return None
    with suppress(OverflowError):  # of a whole number of hundreds of digits
        return float(node) if math.isfinite(node) else None
    return None
