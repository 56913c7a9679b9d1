"""Which trials are next: a first look at each backbone, then the neighbours of the best trial so far."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from danube_sweep.errors import CheckpointError, UserError
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_table import nothing_learned_statement
from danube_sweep.results.rows import winner
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.tonight.backbones import Backbone
from danube_sweep.tonight.costs import correction, predict_s, reserve_s, trial_s
from danube_sweep.tonight.night_folder import NightFolder
from danube_sweep.tonight.searched_keys import EPOCHS_KEY, LR, Key, Settings

FIRST_LOOKS: Final = 0.6
"""Of the time to search that first looks at several backbones may take; the rest goes to the best of them."""
OF_A_ROUND: Final = 0.25
"""Of the time that is left that a later round takes, unless not even a single key fits into that."""
FIRST_LOOK, SEARCH = "first look", "search"
"""The stages of rounds."""
NOTHING_LEFT: Final = "nothing is left to gain: all neighbours of the best trial were tried"


@final
@dataclass(frozen=True)
class Round:
    """Trials that train together: every combination of some values."""

    stage: str
    backbone: Backbone
    values: dict[str, list[str]]
    """By key, all keys of the trials."""
    new: list[dict[str, Any]]
    """Hash, backbone and settings of each trial that there is not yet."""
    predicted_s: float
    """By the planner alone."""
    seconds: float
    """Corrected by what was measured."""
    limit_s: float
    """Seconds after which it stops: the end of the night is kept free."""

    @property
    def fits(self) -> bool:
        return self.seconds <= self.limit_s


@final
@dataclass(frozen=True)
class Best:
    """The best trial so far."""

    backbone: Backbone
    settings: Settings
    hash: str
    learned: bool = True
    """Whether it beats the class prior, as far as anybody knows."""


@final
@dataclass(frozen=True)
class Moment:
    """A night at some time: what it has tried, and the seconds that are left."""

    night: NightFolder
    known: Collection[str]
    """Hashes of trials."""
    left_s: float


def moment_of(night: NightFolder) -> Moment:
    """The night as it is on disk, now."""
    assert night.asked is not None
    known = {str(cell["hash"]) for one in night.ran for cell in one.cells}
    return Moment(night, known, night.asked.hours * 3600 - night.spent_s())


def next_round(night: NightFolder, backbones: Sequence[Backbone]) -> Round | str:
    """The next trials, or why there are none. Reads only what is on disk."""
    now = moment_of(night)
    seen = {str(cell["backbone"]) for one in night.ran for cell in one.cells}
    if (found := first_look(now, backbones, seen)) is not None:
        return found
    best = best_so_far(night, backbones)
    return "no trial has come to its end yet" if best is None else round_around(now, best)


def first_look(now: Moment, backbones: Sequence[Backbone], seen: Collection[str]) -> Round | None:
    """The usual settings of the next backbone that nobody has seen; None if all were, or fit in no way."""
    fresh = [one for one in backbones if one.name not in seen]
    for place, backbone in enumerate(fresh):
        most_s = now.left_s - reserve_s(now.night, backbone, backbone.first)
        share_s = most_s if len(backbones) == 1 else FIRST_LOOKS * most_s / (len(fresh) - place)
        if (found := _first_look(now, backbone, share_s)) is not None:
            return found
    if seen:
        return None
    # The plan promised one trial, if without a refit.
    cheapest = min(backbones, key=lambda one: trial_s(now.night, one, one.first))
    rest_s = now.left_s - predict_s(now.night, cheapest)
    return _round(now, FIRST_LOOK, cheapest, _single(cheapest.first), rest_s)


def round_around(now: Moment, best: Best) -> Round | str:
    """The neighbours of the best trial by one key.

    Trials start with few epochs. While the best one still has these, its other keys come first; once more epochs were
    better, more of them come first.
    """
    waiting = _waiting(now, best)
    if not waiting:
        return NOTHING_LEFT
    small_s = OF_A_ROUND * max(now.left_s, 0.0)
    kept_s = reserve_s(now.night, best.backbone, best.settings)
    for values in _by_key(waiting):
        found = _round(now, SEARCH, best.backbone, values, now.left_s - kept_s)
        if found is not None and found.fits and found.seconds <= small_s:
            return found
    for values in (*_by_key(waiting), *_one_by_one(waiting)):
        found = _round(now, SEARCH, best.backbone, values, now.left_s - kept_s)
        if found is not None and found.fits:
            return found
    return "the time that is left is kept for the end: another trial would not finish"


def best_so_far(night: NightFolder, backbones: Sequence[Backbone]) -> Best | None:
    """The trial that leads the ranking; None while no trial has a validation."""
    try:
        ranking = rank_sweep(night.sweep)
    except CheckpointError:
        return None
    row, learned = winner(ranking), nothing_learned_statement(ranking) is None
    if row is None:
        return None
    cells = {cell["hash"]: cell for one in night.ran for cell in one.cells}
    hashes = {entry.path.name: entry.hash for entry in SweepFolder(night.sweep).entries()}
    for trial in [*row.used, *row.trials]:
        cell = cells.get(hashes.get(trial))
        named = [one for one in backbones if cell is not None and one.name == cell["backbone"]]
        if cell is not None and named:
            return Best(named[0], dict(cell["settings"]), str(cell["hash"]), learned)
    return None


def _first_look(now: Moment, backbone: Backbone, share_s: float) -> Round | None:
    """The usual rate, and with time others; None if not even one trial is predicted to fit."""
    rate = next((key for key in backbone.space.keys if key.name == LR), None)
    if rate is None:
        return _round(now, FIRST_LOOK, backbone, _single(backbone.first), share_s)
    rates = _first_rates(rate)
    for count in range(len(rates), 0, -1):
        values = {**_single(backbone.first), LR: rates[:count]}
        found = _round(now, FIRST_LOOK, backbone, values, share_s)
        if found is not None and found.fits:
            return found
    return None


def _first_rates(rate: Key) -> list[str]:
    # Small backbones and short trials want up to 25 times the usual rate of an adapter: where not all three fit, the
    # higher ones are tried. Where the rates reach no further than that of a whole model may, its neighbours.
    place = rate.values.index(rate.start)
    higher = [rate.values[one] for one in (place + 2, place + 4) if one < len(rate.values)]
    return [*higher, rate.start] if len(higher) == 2 else [rate.start, *rate.neighbours(rate.start)]


# --------------------------------------------------------------------------------------------------------- neighbours


def _waiting(now: Moment, best: Best) -> dict[str, list[Settings]]:
    """By key, the neighbours of the best trial that nobody has tried, in the order of the search."""
    space, settings = best.backbone.space, best.settings
    moves = {
        key.name: [one for one in space.moves(settings, key) if _is_new(now, best.backbone, one)] for key in space.keys
    }
    waiting = {name: some for name, some in moves.items() if some}
    if not best.learned and LR in waiting:  # rates far apart have learned nothing: something else keeps them from it
        waiting[LR] = waiting.pop(LR)
    longer = waiting.get(EPOCHS_KEY)
    if longer is None or settings[EPOCHS_KEY] == best.backbone.first[EPOCHS_KEY]:
        return waiting
    return {EPOCHS_KEY: longer, **waiting}


def _by_key(waiting: dict[str, list[Settings]]) -> Iterator[dict[str, list[str]]]:
    # All neighbours by a key, where they differ from each other in one setting and so are one command.
    for some in waiting.values():
        names = {name for one in some for name in one if any(one[name] != other.get(name) for other in some)}
        if len(names) <= 1 and all(one.keys() == some[0].keys() for one in some):
            yield {**_single(some[0]), **{name: [one[name] for one in some] for name in names}}
        else:
            yield from map(_single, some)


def _one_by_one(waiting: dict[str, list[Settings]]) -> Iterator[dict[str, list[str]]]:
    for some in waiting.values():
        yield from map(_single, some)


def _single(settings: Settings) -> dict[str, list[str]]:
    return {name: [value] for name, value in settings.items()}


def _is_new(now: Moment, backbone: Backbone, settings: Settings) -> bool:
    try:
        return backbone.hash(settings) not in now.known
    except UserError:  # settings that do not go together
        return False


def _round(now: Moment, stage: str, backbone: Backbone, values: dict[str, list[str]], limit_s: float) -> Round | None:
    """The combinations of some values; None if none is new or some do not go together.

    `limit_s`: what it may take at most. It is less where a refit of its longest trial would take more of the end.
    """
    new: list[dict[str, Any]] = []
    seconds: list[float] = []
    try:
        for picked in itertools.product(*values.values()):
            settings = dict(zip(values, picked, strict=True))
            identity = backbone.hash(settings)
            if identity not in now.known:
                new.append({"hash": identity, "backbone": backbone.name, "settings": settings})
                seconds.append(backbone.predicted_s(settings))
    except UserError:
        return None
    if not new:
        return None
    if stage == SEARCH:
        longest = new[max(range(len(new)), key=seconds.__getitem__)]["settings"]
        limit_s = min(limit_s, now.left_s - reserve_s(now.night, backbone, longest))
    predicted_s = sum(seconds)
    return Round(stage, backbone, values, new, predicted_s, predicted_s * correction(now.night, backbone), limit_s)
