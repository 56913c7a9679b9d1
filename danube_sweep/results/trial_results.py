"""What a sweep folder holds of each trial: its config, its result, and where it stands without one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import read_json
from danube_sweep.storage.locks import is_held
from danube_sweep.storage.run_folder import RunFolder, number_at
from danube_sweep.storage.sweep_folder import attempts

RUNNING: Final = "running"
WAITING: Final = "waiting"
STOPPED: Final = "interrupted"
UNDER_WAY: Final = (RUNNING, WAITING, STOPPED, State.preempted.value)
"""The states of a trial that has not ended."""

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,15})(\.\d*)?([eE][+-]?\d{1,3})?")
# libyaml's loader is ten times faster and knows the same tags.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class StoredTrial:
    """A trial as its folder shows it now."""

    folder: RunFolder
    config: dict[str, Any]
    """Values by dotted key; empty for a cell that is no valid trial."""
    overrides: dict[str, Any] | None
    """Value by key, from trial.json; None where one of Hydra's own launchers has made the folder."""
    result: dict[str, Any]
    """Empty without a result.json."""
    state: str
    reason: str | None
    """The first line of what went wrong."""

    @property
    def name(self) -> str:
        return self.folder.path.name

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
    folders = [RunFolder(one) for one in sorted(path.iterdir(), key=_by_number)]
    planned = (path / "sweep.json").is_file()  # then a folder without trial.json was being added when its process died
    trials = [
        read_trial(one, notes) for one in folders if one.trial.is_file() or (one.config.is_file() and not planned)
    ]
    if not trials and not planned:
        raise CheckpointError(
            f"{path} is no sweep: no folder in it holds a trial; give one like multirun/<date>/<time>"
        )
    return trials, notes


def read_trial(folder: RunFolder, notes: list[str]) -> StoredTrial:
    """The trial of one run folder; a file that cannot be read goes into `notes`."""
    described, result = _json(folder.trial, notes), _json(folder.result, notes)
    if not isinstance(result.get("state"), str):
        result = {}
    overrides = _overrides(described["overrides"]) if isinstance(described.get("overrides"), list) else None
    if result and described.get("hash"):
        result.setdefault("trial", described["hash"])
    state, reason = (result["state"], result.get("error")) if result else _standing(folder)
    first = next(iter(str(reason or "").splitlines()), "").strip()
    return StoredTrial(folder, _config(folder.config, notes), overrides, result, state, first or None)


def _by_number(folder: Path) -> tuple[int, str]:
    digits = re.match(r"\d{1,9}", folder.name)
    return (int(digits[0]) if digits else 10**9, folder.name)


def _json(file: Path, notes: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return read_json(file)
    except CheckpointError:
        notes.append(f"{file.parent.name}/{file.name} is cut short or damaged and does not count")
        return {}


def _config(file: Path, notes: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(_flat(dict(yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)), ""))
    except (OSError, UnicodeError, TypeError, ValueError, yaml.YAMLError):
        notes.append(f"{file.parent.name}/{file.name} is cut short or damaged and does not count")
        return {}


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
    tried = attempts(folder)
    if tried and tried[-1].state not in COMPLETE:  # a complete one whose result was deleted is to be run again
        return tried[-1].state, tried[-1].reason
    return (STOPPED if folder.has_checkpoints else WAITING), None
