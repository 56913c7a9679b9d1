"""How often the ranking calls equal configurations different, and how often it finds one that is better.

    python benchmarks/null_analysis.py benchmarks/null_sweep.npz [--sweeps 1000]
    python benchmarks/null_analysis.py --simulated [--sweeps 1000]

The file holds trials of one configuration that differ in their seed (and with it in the order of their rows):
`losses_TN` on the same validation rows, and `group_N` of these. From it sweeps of 20 rows are drawn, with one
seed a row and with three, each without replacement, and compared as a ranking compares them. In a null sweep every row
that is told from the best is an error; `better` takes so much off every loss of one row. `--simulated` draws readings
instead: 60 trials on 160 rows of 40 groups, their level with a deviation of .03.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from danube_sweep.results.bootstrap import fold_of, resampled
from danube_sweep.results.comparison import Compared, half_widths
from danube_sweep.results.metric_sums import metric_sums
from danube_sweep.results.training_noise import resampled_variance, spread_between_rows, training_noise

Floats = NDArray[np.float64]
ROWS, BETTER = 20, (0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Readings:
    """Trials of one configuration: their metric, and how far it is from itself in each resample [B, T]."""

    values_T: Floats
    away_BT: Floats


@dataclass(frozen=True)
class Told:
    """Of one sweep: whether any row is told from the best, and whether the better one won, told from all, from half."""

    any: bool
    won: bool
    from_all: bool
    from_half: bool


def read(losses_TN: Floats, groups_N: NDArray[np.int64]) -> Readings:
    """Resamples the readings once, for all sweeps."""
    metric = metric_sums("validation/log_loss")
    assert metric is not None
    places_N = np.unique(groups_N, return_inverse=True)[1].astype(np.int64)
    fold = fold_of(places_N, np.ones(len(places_N)), [losses_N[:, None] for losses_N in losses_TN])
    return Readings(losses_TN.mean(axis=1), resampled(metric.value, fold, seed=0))


def simulated(seed: int = 0) -> Readings:
    """60 trials with known noise: of training .03, of 40 groups of 4 rows."""
    generator = np.random.default_rng(seed)
    groups_N = np.repeat(np.arange(40), 4)
    own_TG = generator.normal(scale=0.15, size=(60, 40))
    own_TG -= own_TG.mean(axis=1, keepdims=True)
    level_T = 1.0 + generator.normal(scale=0.03, size=60)
    return read(level_T[:, None] + own_TG[:, groups_N] + generator.normal(scale=0.1, size=160), groups_N)


def sweep(readings: Readings, chosen_RS: NDArray[np.int64], better: float) -> Told:
    """A sweep of the trials `chosen_RS` (rows by seeds), the first row better by so much, as results/ ranks it."""
    values_RS = readings.values_T[chosen_RS] - better * (np.arange(len(chosen_RS)) == 0)[:, None]
    order = values_RS.mean(axis=1).argsort()
    away_BR = readings.away_BT[:, chosen_RS].mean(axis=2)
    noise = training_noise([{(seed, None): float(v) for seed, v in enumerate(values_RS[row])} for row in order])
    if noise is not None:
        known = [{(seed, None): readings.away_BT[:, trial] for seed, trial in enumerate(row)} for row in chosen_RS]
        noise = replace(noise, resampled=resampled_variance(known, noise.over))
    best, means_R = order[0], values_RS.mean(axis=1)
    compared = [
        Compared(float(means_R[row] - means_R[best]), away_BR[:, row] - away_BR[:, best], chosen_RS.shape[1])
        for row in order[1:]
    ]
    if noise is None:
        noise = spread_between_rows(means_R, away_BR)
    halves = half_widths(compared, noise)
    clear = [one.difference > half for one, half in zip(compared, halves, strict=True)]
    won = bool(best == 0)
    return Told(any(clear), won, won and all(clear), won and sum(clear) >= len(clear) / 2)


def shares(readings: Readings, seeds: int, better: float, sweeps: int) -> Floats:
    """Shares of sweeps: [any row told, better one won, told from all, told from half]."""
    generator = np.random.default_rng(seeds)
    told = []
    for _ in range(sweeps):
        chosen = generator.permutation(len(readings.values_T))[: ROWS * seeds].reshape(ROWS, seeds)
        one = sweep(readings, chosen, better)
        told.append([one.any, one.won, one.from_all, one.from_half])
    return np.asarray(np.mean(told, axis=0), dtype=np.float64)


def table(readings: Readings, sweeps: int) -> str:
    """Markdown: the error of null sweeps, then the power for each difference."""
    lines = ["| better by | seeds | a row is told from the best | it wins | told from all | from half |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for better in (0.0, *BETTER):
        for seeds in (1, 3):
            found = shares(readings, seeds, better, sweeps)
            power = ["", "", ""] if not better else [f"{share:.1%}" for share in found[1:]]
            lines.append(f"| {better or 'null'} | {seeds} | {found[0]:.1%} | {' | '.join(power)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=Path(__file__).parent / "null_sweep.npz")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--sweeps", type=int, default=1000)
    options = parser.parse_args(arguments)
    if options.simulated:
        readings = simulated()
    else:
        with np.load(options.file) as stored:
            readings = read(stored["losses_TN"].astype(np.float64), stored["group_N"].astype(np.int64))
    deviation = readings.values_T.std(ddof=1)
    print(f"{len(readings.values_T)} trials, log loss {readings.values_T.mean():.4f}, sd {deviation:.4f}\n")
    print(table(readings, options.sweeps))


if __name__ == "__main__":
    main()
