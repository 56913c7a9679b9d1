"""The trials of a sweep folder: the config, the result, and without one the state."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.config.stored import plain_config
from danube_sweep.decoding import Undecodable, yaml_in_sections
from danube_sweep.errors import CheckpointError
from danube_sweep.recovery import Recovery
from danube_sweep.storage.ensemble_folder import refuse_ensemble
from danube_sweep.storage.files import DAMAGED as SET_ASIDE
from danube_sweep.storage.locks import is_held
from danube_sweep.storage.run_folder import RunFolder, number_at
from danube_sweep.storage.sweep_folder import SweepFolder, attempts

RUNNING: Final = "running"
WAITING: Final = "waiting"
STOPPED: Final = "interrupted"
DAMAGED: Final = "damaged"
"""The state of a trial that cannot be identified from its files."""
PAUSED: Final = State.paused.value
UNDER_WAY: Final = (RUNNING, WAITING, STOPPED, State.preempted.value, PAUSED)
"""The states of a trial that has not ended."""

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,15})(\.\d*)?([eE][+-]?\d{1,3})?")


@dataclass(frozen=True)
class StoredTrial:
    """A trial as its folder shows it now."""

    folder: RunFolder
    config: dict[str, Any]
    """Values by dotted key; empty for a cell that is no valid trial."""
    overrides: dict[str, Any] | None
    """Value by key, from trial.json; None where one of Hydra's own launchers has made the folder."""
    result: dict[str, Any]
    """Empty without a result.json. Of a paused trial, the result it will have if it stays paused."""
    state: str
    reason: str | None
    """The first line of its error."""
    sweep: str | None = None
    """The name of its own sweep, if trials of two sweeps are ranked together."""
    unread: OSError | None = None
    """What the system said instead of giving its result.json."""

    @property
    def name(self) -> str:
        """The name of its folder, after that of its sweep if there are two."""
        return self.folder.path.name if self.sweep is None else f"{self.sweep}/{self.folder.path.name}"

    @property
    def seed(self) -> int | None:
        return self._whole("seed")

    @property
    def fold(self) -> int | None:
        """The fold that validates, from 0; None for a trial without folds."""
        return self._whole("data.fold")

    @property
    def folds(self) -> int | None:
        return self._whole("data.folds")

    def _whole(self, key: str) -> int | None:
        found = self.config.get(key, (self.overrides or {}).get(key))
        return found if isinstance(found, int) else None

    @property
    def hash(self) -> str | None:
        return self.result.get("trial")

    def number(self, address: str) -> float | None:
        """The finite number at an address in the result, like validation/log_loss."""
        return number_at(self.result, address)


def read_trials(path: Path) -> tuple[list[StoredTrial], list[str]]:
    """Every trial of a sweep folder, by number, and notes on files that could not be read.

    A sweep that has only begun has none. Raises CheckpointError for a folder that is missing, or that is no sweep and
    has no run folder in it.
    """
    notes: list[str] = []
    if not path.is_dir():
        raise CheckpointError(f"{path} is no sweep: there is no such folder; give one like multirun/<date>/<time>")
    refuse_ensemble(path, "it has no ranking; give the sweep that it is of, or draw it by danube-sweep report")
    folders = [RunFolder(one) for one in sorted(path.iterdir(), key=_by_number)]
    planned = (path / "sweep.json").is_file()  # then a folder without trial.json was being added when its process died
    recovery = Recovery(SweepFolder(path))
    trials = [
        read_trial(one, notes, recovery)
        for one in folders
        if one.trial.is_file() or (one.config.is_file() and not planned)
    ]
    if not trials and not planned:
        raise CheckpointError(
            f"{path} is no sweep: no folder in it holds a trial; give one like multirun/<date>/<time>"
        )
    notes += [
        f"{one.path.name} is left out: its trial.json was damaged and is set aside"
        for one in folders
        if planned and not one.trial.is_file() and one.trial.with_name(f"{one.trial.name}{SET_ASIDE}").is_file()
    ]
    return trials, notes


def read_trial(folder: RunFolder, notes: list[str], recovery: Recovery | None = None) -> StoredTrial:
    """The trial of one run folder; a file that cannot be read goes into `notes`.

    One of trial.json and config.yaml is enough. If neither identifies the trial, it is `damaged` and its result is not
    used, since nobody knows which trial it belongs to.
    """
    described, (result, unread) = _described(folder, notes), _result(folder, notes)
    overrides = _overrides(described["overrides"]) if "overrides" in described else None
    if result and described.get("hash"):
        result.setdefault("trial", described["hash"])
    state, reason = (result["state"], result.get("error")) if result else _standing(folder)
    if state == PAUSED:
        result = _paused(folder, notes)
    config = _config(folder.config, overrides or {}) if folder.config.is_file() else {}
    if config is None and not (described and described.get("hash") is None):
        config = _recovered(described, recovery or Recovery(SweepFolder(folder.path.parent)))
        if config is None:
            notes.append(f"{folder.path.name} is left out: {_unknown(folder, described)}")
            result, state, reason = {}, DAMAGED, "its trial is not known"
        else:
            notes.append(f"{folder.path.name}/config.yaml is damaged: the trial is known by its overrides")
    first = next(iter(str(reason or "").splitlines()), "").strip()
    return StoredTrial(folder, config or {}, overrides, result, state, first or None, unread=unread)


def _recovered(described: Mapping[str, Any], recovery: Recovery) -> dict[str, Any] | None:
    if not isinstance(described.get("hash"), str):
        return None
    found = recovery.config(described["overrides"], described["hash"], described.get("hash_version", 1))
    return None if found is None else dict(_flat(plain_config(found), ""))


def _unknown(folder: RunFolder, described: Mapping[str, Any]) -> str:
    if not described:
        return "config.yaml is damaged, and trial.json is too or is missing"
    return "config.yaml is damaged, and the overrides in trial.json no longer lead to the same trial"


def _by_number(folder: Path) -> tuple[int, str]:
    digits = re.match(r"\d{1,9}", folder.name)
    return (int(digits[0]) if digits else 10**9, folder.name)


def _described(folder: RunFolder, notes: list[str]) -> dict[str, Any]:
    if not folder.trial.is_file():
        return {}
    found = folder.stated_trial()
    if found is None or "hash" not in found or "overrides" not in found:
        notes.append(f"{folder.path.name}/trial.json is damaged: the trial is known by its config.yaml")
        return {}
    return found


def _result(folder: RunFolder, notes: list[str]) -> tuple[dict[str, Any], OSError | None]:
    try:
        return folder.read_result() or {}, None
    except CheckpointError as error:
        unread = error.__cause__ if isinstance(error.__cause__, OSError) else None
        why = "is cut short or damaged" if unread is None else f"cannot be read ({unread.strerror})"
        notes.append(f"{folder.path.name}/result.json {why} and does not count")
        return {}, unread


def _paused(folder: RunFolder, notes: list[str]) -> dict[str, Any]:
    try:
        return folder.read_paused() or {}
    except CheckpointError:
        notes.append(f"{folder.path.name}/paused.json is cut short or damaged and does not count")
        return {}


def _config(file: Path, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """Values by dotted key; None for a file that is damaged, or contradicts the overrides."""
    try:
        text = file.read_bytes()
        found = yaml_in_sections(text)
    except (OSError, Undecodable):
        return None
    if not isinstance(found, dict) or not text.endswith(b"\n"):
        return None
    config = dict(_flat(found, ""))
    return None if any(_contradicts(config.get(key), value) for key, value in overrides.items()) else config


def _contradicts(value: Any, override: Any) -> bool:
    # Texts may be written in several ways, and auto becomes a number.
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, override))
    return numbers and value != override


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overrides(texts: list[Any]) -> dict[str, Any]:
    parts = [str(text).lstrip("+~").partition("=") for text in texts]
    return {key: _value(value) for key, _, value in parts}


def _value(text: str) -> Any:
    # 1e-3 and 0.001 are one value; a text that only looks like a number to YAML, like 0x1f or 007, stays a text.
    if match := _NUMBER.fullmatch(text):
        return float(text) if match[2] or match[3] else int(text)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def _standing(folder: RunFolder) -> tuple[str, str | None]:
    """State and reason of a trial without a result."""
    if is_held(folder.lock) or is_held(folder.claim):
        return RUNNING, None
    if folder.paused.is_file():
        return PAUSED, None
    tried = attempts(folder)
    if tried and tried[-1].state not in COMPLETE:  # a complete one whose result was deleted is to be run again
        return tried[-1].state, tried[-1].reason
    return (STOPPED if folder.has_checkpoints else WAITING), None
