"""Which trials are next: a first look at each backbone, then the neighbours of the best trial so far."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from danube_sweep.errors import CheckpointError, UserError
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.rows import winner
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.tonight.backbones import Backbone
from danube_sweep.tonight.costs import correction, predict_s, reserve_s, trial_s
from danube_sweep.tonight.night_folder import NightFolder
from danube_sweep.tonight.searched_keys import LR, Settings

FIRST_LOOKS: Final = 0.6
"""Of the time to search that first looks at several backbones may take; the rest goes to the best of them."""


@final
@dataclass(frozen=True)
class Round:
    """Trials that train together: every combination of some values."""

    stage: str
    backbone: Backbone
    values: dict[str, list[str]]
    """By key, all keys of the backbone."""
    new: list[dict[str, Any]]
    """Hash, backbone and settings of each trial that there is not yet."""
    predicted_s: float
    """By the planner alone."""
    seconds: float
    """Corrected by what was measured."""
    limit_s: float
    """Seconds after which it stops."""


@final
@dataclass(frozen=True)
class Best:
    """The best trial so far."""

    backbone: Backbone
    settings: Settings
    hash: str


def next_round(night: NightFolder, backbones: Sequence[Backbone]) -> Round | str:
    """The next trials, or why there are none. Reads only what is on disk."""
    assert night.asked is not None
    left_s = night.asked.hours * 3600 - night.spent_s()
    seen = {str(cell["backbone"]) for one in night.ran for cell in one.cells}
    fresh = [one for one in backbones if one.name not in seen]
    for place, backbone in enumerate(fresh):
        most_s = left_s - reserve_s(night, backbone, backbone.first)
        share_s = most_s if len(backbones) == 1 else FIRST_LOOKS * most_s / (len(fresh) - place)
        found = _first_look(night, backbone, share_s)
        if found is not None:
            return found
    if not seen:  # the plan promised one trial, if without a refit
        cheapest = min(backbones, key=lambda one: trial_s(night, one, one.first))
        rest_s = left_s - predict_s(night, cheapest)
        if (only := _round(night, "first look", cheapest, cheapest.first, {}, rest_s)) is not None:
            return only
    best = best_so_far(night, backbones)
    if best is None:
        return "no trial has a validation yet"
    return _around(night, best, left_s - reserve_s(night, best.backbone, best.settings))


def best_so_far(night: NightFolder, backbones: Sequence[Backbone]) -> Best | None:
    """The trial that leads the ranking; None while no trial has a validation."""
    try:
        row = winner(rank_sweep(night.sweep))
    except CheckpointError:
        return None
    if row is None:
        return None
    cells = {cell["hash"]: cell for one in night.ran for cell in one.cells}
    hashes = {entry.path.name: entry.hash for entry in SweepFolder(night.sweep).entries()}
    for trial in [*row.used, *row.trials]:
        cell = cells.get(hashes.get(trial))
        named = [one for one in backbones if cell is not None and one.name == cell["backbone"]]
        if cell is not None and named:
            return Best(named[0], dict(cell["settings"]), str(cell["hash"]))
    return None


def _first_look(night: NightFolder, backbone: Backbone, share_s: float) -> Round | None:
    """The usual rate, and with time its neighbours; None if not even one trial is predicted to fit."""
    rate = next((key for key in backbone.keys if key.name == LR), None)
    rates = [] if rate is None else [rate.start, *rate.neighbours(rate.start)]
    for count in range(len(rates), 0, -1):
        found = _round(night, "first look", backbone, backbone.first, {LR: rates[:count]}, share_s)
        if found is not None and found.seconds <= share_s:
            return found
    return None if rates else _round(night, "first look", backbone, backbone.first, {}, share_s)


def _around(night: NightFolder, best: Best, left_s: float) -> Round | str:
    """The neighbours of the best trial in two keys at a time, in one where time is short."""
    waiting = {
        key.name: values
        for key in best.backbone.keys
        if (values := [one for one in key.neighbours(best.settings[key.name]) if _is_new(night, best, key.name, one)])
    }
    if not waiting:
        return "nothing is left to gain: all neighbours of the best trial were tried"
    names = list(waiting)
    choices = [*itertools.combinations(names[:3], 2), *((name,) for name in names)]
    for chosen in choices:
        own = len(chosen) > 1  # two keys: with the best trial's own values, for what they do together
        tried = {name: [*([best.settings[name]] if own else []), *waiting[name]] for name in chosen}
        found = _round(night, "search", best.backbone, best.settings, tried, left_s)
        if found is not None and found.seconds <= left_s:
            return found
    for name in names:
        for value in waiting[name]:
            found = _round(night, "search", best.backbone, best.settings, {name: [value]}, left_s)
            if found is not None and found.seconds <= left_s:
                return found
    return "the time that is left is kept for the end: another trial would not finish"


def _is_new(night: NightFolder, best: Best, key: str, value: str) -> bool:
    try:
        identity = best.backbone.hash({**best.settings, key: value})
    except UserError:  # settings that do not go together
        return False
    return identity not in _known(night)


def _known(night: NightFolder) -> set[str]:
    return {str(cell["hash"]) for one in night.ran for cell in one.cells}


def _round(
    night: NightFolder, stage: str, backbone: Backbone, base: Settings, values: dict[str, list[str]], limit_s: float
) -> Round | None:
    """The combinations of some values on top of `base`; None if none is new or some do not go together."""
    every = {name: values.get(name, [value]) for name, value in base.items()}
    known, new = _known(night), []
    predicted = 0.0
    try:
        for picked in itertools.product(*every.values()):
            settings = dict(zip(every, picked, strict=True))
            identity = backbone.hash(settings)
            if identity in known:
                continue
            new.append({"hash": identity, "backbone": backbone.name, "settings": settings})
            predicted += backbone.predicted_s(settings)
    except UserError:
        return None
    if not new:
        return None
    return Round(stage, backbone, every, new, predicted, predicted * correction(night, backbone), limit_s)
