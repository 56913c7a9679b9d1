"""The attempts of all trials in each slot over time, and those that train now."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from danube_sweep.decoding import json_from
from danube_sweep.errors import CheckpointError
from danube_sweep.results.trial_results import RUNNING, StoredTrial
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import RunFolder

_CLOCK_S: Final = 1.5
"""Starts are whole seconds: bars that overlap by less came one after the other."""


@dataclass(frozen=True)
class Bar:
    """An attempt, in seconds since 1970."""

    trial: str
    state: str
    start_s: float
    seconds: float
    host: str
    pack: str | None = None
    slot: int | None = None
    lane: int = 0
    place: int = 0
    """Its place in its pack, from 0."""

    @property
    def end_s(self) -> float:
        return self.start_s + self.seconds


@dataclass(frozen=True)
class Timeline:
    """Bars in their lanes; each lane was a slot, as far as can be told."""

    bars: list[Bar]
    lanes: list[str]
    """The host of each lane."""
    packed: list[int]
    """The most trials that trained together in each lane."""


def timeline(trials: Sequence[StoredTrial], now_s: float) -> Timeline:
    """Every attempt in a lane: its slot where the attempt says so, else the first lane of its host that was free.

    Attempts that name the same pack trained together, and are in one lane. Two sweeps have lanes of their own, and both
    begin at 0.
    """
    sweeps = dict.fromkeys(trial.sweep for trial in trials)
    bars = [bar for sweep in sweeps for bar in _bars([one for one in trials if one.sweep == sweep], now_s)]
    groups = sorted(_groups(bars), key=lambda group: group[0].start_s)
    free: dict[tuple[str, int], float] = {}
    placed = []
    for group in groups:
        first, end = group[0], max(bar.end_s for bar in group)
        key = (first.host, _slot(first, free, end))
        free[key] = max(end, free.get(key, 0.0))
        placed += [(key, replace(bar, place=place)) for place, bar in enumerate(group)]
    lanes = sorted(free)
    most = [max(bar.place for key, bar in placed if key == lane) + 1 for lane in lanes]
    found = [replace(bar, lane=lanes.index(key)) for key, bar in placed]
    return Timeline(found, [host for host, _ in lanes], most)


def _bars(trials: Sequence[StoredTrial], now_s: float) -> list[Bar]:
    """The attempts of one sweep."""
    found = [
        replace(bar, trial=trial.name) for trial in trials for bar in (*_ended(trial.folder), *_running(trial, now_s))
    ]
    sweep = trials[0].sweep if trials else None
    if sweep is None or not found:
        return found
    first_s = min(bar.start_s for bar in found)
    return [replace(bar, start_s=bar.start_s - first_s, host=f"{sweep} {bar.host}".strip()) for bar in found]


def _groups(bars: Sequence[Bar]) -> list[list[Bar]]:
    groups: dict[Any, list[Bar]] = {}
    for number, bar in enumerate(sorted(bars, key=lambda one: one.start_s)):
        groups.setdefault((bar.host, bar.pack) if bar.pack else number, []).append(bar)
    return list(groups.values())


def _slot(bar: Bar, free: dict[tuple[str, int], float], end_s: float) -> int:
    if bar.slot is not None:
        return bar.slot
    late_s = min(_CLOCK_S, (end_s - bar.start_s) / 2)
    number = 0
    while free.get((bar.host, number), 0.0) > bar.start_s + late_s:
        number += 1
    return number


def _ended(folder: RunFolder) -> list[Bar]:
    found = []
    for said in attempt_lines(folder):
        try:
            start_s = datetime.fromisoformat(said["started"]).timestamp()
            seconds, state, host = float(said["seconds"]), str(said["state"]), str(said.get("host", ""))
        except (KeyError, TypeError, ValueError):
            continue
        slot = said.get("slot")
        pack = said.get("pack")
        bar = Bar(folder.path.name, state, start_s, max(seconds, 0.0), host, None if pack is None else str(pack))
        found.append(replace(bar, slot=slot if isinstance(slot, int) else None))
    return found


def attempt_lines(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl, with whatever they say; one that was cut short is left out."""
    if not folder.attempts.is_file():
        return []
    found = []
    for line in folder.attempts.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(TypeError, ValueError):
            found.append(dict(json_from(line)))
    return found


def _running(trial: StoredTrial, now_s: float) -> list[Bar]:
    start_s = started_s(trial)
    if trial.state != RUNNING or start_s is None:
        return []
    return [Bar(trial.name, RUNNING, start_s, max(now_s - start_s, 0.0), _host(trial.folder))]


def _host(folder: RunFolder) -> str:
    with suppress(CheckpointError, KeyError, TypeError):
        return str(read_json(folder.environment)["machine"]["host"])
    return ""


def started_s(trial: StoredTrial) -> float | None:
    """When a running trial's present attempt began, in seconds since 1970: it has then written its environment."""
    file = trial.folder.environment
    return file.stat().st_mtime if file.is_file() else None
