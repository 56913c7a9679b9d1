"""The intervals of a ranking, the same in every view: its rows against the best one, the best one, and the class prior.

A cell is a seed and a fold; a row has a trial in each of its cells.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from danube_sweep.results.answers import Answers, aligned, answered_alike, read_answers
from danube_sweep.results.bootstrap import fold_of, is_affordable, resampled
from danube_sweep.results.comparison import Compared, half_width, half_widths
from danube_sweep.results.metric_sums import MetricSums, metric_sums, value_of
from danube_sweep.results.training_noise import Cell, TrainingNoise, resampled_variance, spread_between_rows
from danube_sweep.storage.predictions import Floats

PRIOR = "the class prior"


@dataclass(frozen=True)
class Contender:
    """A row of the ranking: its metric and the file of its predictions by cell."""

    name: str
    values: Mapping[Cell, float]
    files: Mapping[Cell, Path]
    refused: str | None = None
    """Why it has no interval, in a few words."""
    trained: bool = True
    """Whether its metric moves when it is trained again."""


@dataclass
class Intervals:
    """Halves of the 95 % intervals, by the contenders' names; `notes` on those that are missing."""

    halves: dict[str, float] = field(default_factory=dict)
    """Of the differences to the best one."""
    best: float | None = None
    """Of the best one's own metric."""
    prior: tuple[float, float | None] | None = None
    """The metric of the class prior and half the interval of its difference, where the files tell them."""
    noise: TrainingNoise | None = None
    """Training noise as it counts here; between rows of single trials their own spread."""
    resampled: str = ""
    """The resampled units: `200 validation rows`, or `40 groups of 200 validation rows`."""
    notes: list[str] = field(default_factory=list)


def difference(one: Contender, best: Contender) -> float:
    """The metric over the cells that both have, one minus best; over all of each where they share none."""
    shared = [cell for cell in one.values if cell in best.values]
    if not shared:
        return fmean(one.values.values()) - fmean(best.values.values())
    return fmean(one.values[cell] - best.values[cell] for cell in shared)


def find_intervals(
    address: str,
    best: Contender,
    others: Sequence[Contender],
    noise: TrainingNoise | None,
    priors: Mapping[int | None, Sequence[float]],
) -> Intervals:
    """The intervals of a metric like validation/log_loss.

    `priors`: the answer without reading, by fold, where it is known; it is compared as a row of its own is.
    """
    metric, found = metric_sums(address), Intervals()
    if metric is None:
        name = address.rpartition("/")[2]
        found.notes.append(f"no intervals: {name} is not made of sums over validation rows that could be resampled")
        return found
    if best.refused is not None:
        found.notes.append(f"no intervals: the best row, {best.name}: {best.refused}")
        return found
    read = _Reading(metric, best, found)
    if not read.references:
        return found
    refused = Counter[str]()
    for other in others:
        why = other.refused or read.add(other)
        if why is not None:
            refused[why] += 1
    found.notes += [f"no interval for {count} row{'s' * (count > 1)}: {why}" for why, count in refused.items()]
    _compare(read, read.add_prior(priors), noise, found)
    return found


def _told(references: Sequence[Answers], groups: int) -> str:
    rows = sum(len(one.losses_N) for one in references)
    said = f"{rows:,} validation rows"
    if any(one.groups_N is None for one in references):
        return f"{said}, one by one, as predictions of an older version keep no groups"
    return said if groups == rows else f"{groups:,} groups (prompts, texts, documents) of {said}"


class _Reading:
    """The sums of every contender that can be compared, fold by fold, on the best one's validation rows."""

    def __init__(self, metric: MetricSums, best: Contender, found: Intervals) -> None:
        self.metric, self.best = metric, best
        self.references: dict[int | None, Answers] = {}
        self.sums: dict[int | None, dict[tuple[str, Cell], Floats]] = {}
        self.added: list[Contender] = []
        why = self.add(best)
        if why is not None:
            found.notes.append(f"no intervals: the best row, {best.name}: {why}")
            self.references = {}
            return
        groups = [len(np.unique(one.places_N)) for one in self.references.values()]
        found.resampled = _told(list(self.references.values()), sum(groups))
        if min(groups) < 2:
            found.notes.append("no intervals: all validation rows are of one group (prompt, text, document)")
            self.references = {}

    def add(self, one: Contender) -> str | None:
        """Reads a contender on the cells that it shares with the best one; in a few words why it cannot be compared."""
        shared = [cell for cell in one.values if cell in self.best.values]
        if not shared:
            return "no seed and fold in common with the best row"
        read: dict[Cell, Floats] = {}
        for cell in shared:
            found = self._sums(one.files[cell], cell)
            if isinstance(found, str):
                return found
            read[cell] = found
        for cell, sums in read.items():
            self.sums.setdefault(cell[1], {})[one.name, cell] = sums
        self.added.append(one)
        return None

    def _sums(self, file: Path, cell: Cell) -> Floats | str:
        answers = read_answers(file, losses_alone=self.metric.losses_alone and cell[1] in self.references)
        if isinstance(answers, str):
            return answers
        found = aligned(answers, self.references.setdefault(cell[1], answers))
        if isinstance(found, str):
            return found
        try:
            return self.metric.sums(found)
        except KeyError as error:
            return f"predictions with {error.args[0]}"

    def add_prior(self, priors: Mapping[int | None, Sequence[float]]) -> Contender | None:
        """The answer without reading as a contender in the best one's cells; None where it is not known for all."""
        values: dict[Cell, float] = {}
        for cell in self.best.values:
            reference = self.references[cell[1]]
            alike = answered_alike(reference, priors[cell[1]]) if cell[1] in priors else None
            if alike is None:
                return None
            values[cell] = value_of(self.metric, alike)
            self.sums[cell[1]][PRIOR, cell] = self.metric.sums(alike)
        prior = Contender(PRIOR, values, {}, trained=False)
        self.added.append(prior)
        return prior

    def away(self) -> dict[tuple[str, Cell], Floats] | None:
        """Of every contender and cell: how far its metric is from itself in each resample; None if it took minutes."""
        numbers = [(len(self.references[fold].losses_N), sums) for fold, sums in self.sums.items()]
        if not all(is_affordable(rows, sum(one.shape[1] for one in sums.values())) for rows, sums in numbers):
            return None
        found: dict[tuple[str, Cell], Floats] = {}
        for fold, sums in self.sums.items():
            reference = self.references[fold]
            drawn = fold_of(reference.places_N, reference.weights_N, list(sums.values()))
            away_BT = resampled(self.metric.value, drawn, seed=0 if fold is None else fold)
            found |= zip(sums, away_BT.T, strict=True)
        return found


def _compare(read: _Reading, prior: Contender | None, noise: TrainingNoise | None, found: Intervals) -> None:
    away, best = read.away(), read.best
    if away is None:
        found.notes.append("no intervals: so many classes and rows would take minutes to resample")
        return
    if noise is not None:
        rows = [_cells_of(one, best, away) for one in read.added if one.trained]
        noise = found.noise = replace(noise, resampled=resampled_variance(rows, noise.over))
    others = [one for one in read.added if one is not best]
    compared = []
    for one in others:
        cells = _cells_of(one, best, away)
        away_B = np.mean([away_B - away[best.name, cell] for cell, away_B in cells.items()], axis=0)
        compared.append(Compared(difference(one, best), away_B, len(cells), one.trained))
    halves = dict(
        zip((one.name for one in others), half_widths(compared, noise, best_trained=best.trained), strict=True)
    )
    if noise is None:
        halves |= _among_single_trials(read, compared, found)
    found.halves = {name: half for name, half in halves.items() if name != PRIOR}
    own_B = np.mean([away[best.name, cell] for cell in best.values], axis=0)
    found.best = half_width(own_B, len(best.values), noise if best.trained else None)
    if prior is not None:
        found.prior = fmean(prior.values.values()), halves[PRIOR]


def _among_single_trials(read: _Reading, compared: Sequence[Compared], found: Intervals) -> dict[str, float]:
    """The halves of trained rows where nothing was trained twice: the rows' own spread stands in for the noise.

    The best row's own interval, and its differences to rows without training in them, hold the validation rows alone.
    """
    others = [one for one in read.added if one is not read.best]
    pairs = [(other, one) for other, one in zip(others, compared, strict=True) if other.trained]
    if not pairs or not read.best.trained:
        return {}
    trained = [one for _, one in pairs]
    values_R = np.array([0.0, *(one.difference for one in trained)])
    away_BR = np.stack([np.zeros(len(trained[0].away_B)), *(one.away_B for one in trained)], axis=1)
    found.noise = spread_between_rows(values_R, away_BR)
    halves = half_widths(trained, found.noise)
    return {other.name: half for (other, _), half in zip(pairs, halves, strict=True)}


def _cells_of(one: Contender, best: Contender, away: Mapping[tuple[str, Cell], Floats]) -> dict[Cell, Floats]:
    return {cell: away[one.name, cell] for cell in one.values if cell in best.values}


def own_intervals(file: Path, metrics: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """95 % intervals of one run's validation metrics, over its validation rows alone; of those that have one."""
    found = {}
    for name, value in metrics.items():
        alone = Contender(name, {(None, None): value}, {(None, None): file})
        half = find_intervals(f"validation/{name}", alone, [], None, {}).best
        if half is not None:
            found[name] = (value - half, value + half)
    return found
