"""`danube-sweep oof`: the complete groups in a table, best first, and the best one's predictions in a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from danube_sweep.config.schema import Config, path_fields
from danube_sweep.data.parts import load_undivided
from danube_sweep.data.records import Record
from danube_sweep.errors import CheckpointError, UserError
from danube_sweep.results.oof.fold_groups import FoldGroup, find_groups
from danube_sweep.results.oof.join_folds import join, score_joined
from danube_sweep.results.oof.joined_ensemble import joined_ensemble
from danube_sweep.results.oof.scored import Scored
from danube_sweep.results.oof.write_oof import check_target, write_predictions
from danube_sweep.results.ranking_table import plain
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.outputs import check_place, refuse_existing
from danube_sweep.terminal.screen import Terminal

FILE = "oof.parquet"
"""The name of the predictions in a sweep's or an ensemble's folder."""


def run_oof(directories: Sequence[Path], output: Path | None, terminal: Terminal, *, overwrite: bool = False) -> None:
    """Joins the folds of each group, scores them, prints the table and writes the best group's predictions.

    Raises CheckpointError, with the missing folds, if no group is complete. Raises DiskError for a file that exists
    unless `overwrite`, and the errors of `check_target` and `write_predictions`.
    """
    target = output or directories[0] / FILE
    if output is not None:
        check_target(output)
    refuse_existing(target, "--output", overwrite=overwrite, draws=FILE)
    load = _loader()
    ensembles = [EnsembleFolder(one) for one in directories if EnsembleFolder(one).file.is_file()]
    joined = [joined_ensemble(one, load) for one in ensembles]
    groups, notes = find_groups([one for one in directories if EnsembleFolder(one) not in ensembles])
    scored = [*_scored(groups, notes, load), *(one for one, _ in joined)]
    scored.sort(key=lambda one: next(iter(one.metrics.items())))  # the head's first metric is a loss
    notes += [said for _, said in joined]
    incomplete = [plain(f"{group.name}: {group.lacks()} missing") for group in groups if group.missing]
    notes = [plain(note) for note in notes]
    if not scored:
        said = "; ".join([*incomplete, *notes]) or "no trial has data.folds"
        raise CheckpointError(f"{', '.join(map(str, directories))}: no group of trials has all its folds: {said}")
    shown, left_out = _fitting(scored, terminal.width)
    terminal.show(_table(scored, shown))
    if left_out:
        terminal.note(f"left out, for want of width: {', '.join(left_out)}; COLUMNS=200 shows them")
    for line in [*incomplete, *notes]:
        terminal.note(line)
    best = scored[0]
    check_place(target, "--output", [*best.read, *_data_files(best.config)], draws=FILE)
    write_predictions(best.predictions, target)
    terminal.note(plain(f"{target}: {best.predictions.num_rows} rows of {best.name}"))


def _data_files(config: Config) -> list[Path]:
    found: list[Path] = []
    for name in path_fields(config.data):
        named = getattr(config.data, name) or []
        found += [Path(one) for one in ([named] if isinstance(named, str) else named)]
    return found


def _scored(groups: Sequence[FoldGroup], notes: list[str], load: Callable[[Config], list[Record]]) -> list[Scored]:
    """The complete groups."""
    found = []
    for group in groups:
        if group.config is None or not group.seeds:
            continue
        try:
            records = load(group.config)
            joined = join(list(group.seeds.values()), records, whole=group.config.data.max_rows is None)
        except UserError as error:
            notes.append(f"{group.name} does not count: {error}")
        else:
            metrics = score_joined(joined, group.config.head.target, records)
            read = [run.predictions for runs in group.seeds.values() for run in runs]
            seeds = len(group.seeds)
            found.append(Scored(group.name, group.values, group.folds, seeds, joined, metrics, group.config, read))
    return found


def _loader() -> Callable[[Config], list[Record]]:
    # Groups mostly differ in anything but their data, which are then read once.
    read: dict[str, list[Record]] = {}

    def load(config: Config) -> list[Record]:
        key = repr((config.head.target, replace(config.data, fold=None)))
        if key not in read:
            read[key] = load_undivided(config.data, config.head.target)
        return read[key]

    return load


def _fitting(scored: Sequence[Scored], width: int) -> tuple[list[str], list[str]]:
    """The metrics that there is room for, the loss in any case, and those that are left out: rich would cut numbers."""
    metrics = _keys([one.metrics for one in scored])
    wide = Console(width=10_000)
    kept = len(metrics)
    while kept > 1 and wide.measure(_table(scored, metrics[:kept])).maximum > width:
        kept -= 1
    return metrics[:kept], metrics[kept:]


def _keys(named: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for one in named for key in one))


def _table(scored: Sequence[Scored], metrics: Sequence[str]) -> Table:
    varied = _keys([one.values for one in scored])
    table = Table(title=Text("out of fold", style="bold"), title_justify="left", box=None, pad_edge=False)
    for title in ("#", *varied, *metrics, "folds", "seeds", "rows"):
        table.add_column(Text(plain(title), style="cyan"), justify="left" if title in varied else "right")
    for place, one in enumerate(scored, start=1):
        values = [plain(str(one.values.get(key, ""))) for key in varied]
        numbers = [f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in metrics]
        counts = (one.folds, one.seeds, one.predictions.num_rows)
        table.add_row(*map(Text, (str(place), *values, *numbers, *map(str, counts))))
    return table
