"""The baselines of a sweep folder as rows of its ranking."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from danube_sweep.errors import CheckpointError
from danube_sweep.results.intervals import Contender
from danube_sweep.results.rows import Objectives, Row
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import RunFolder, number_at
from danube_sweep.storage.sweep_folder import SweepFolder

Found = tuple[RunFolder, dict[str, Any]]


def baseline_rows(path: Path, objectives: Objectives, varied: Sequence[str], notes: list[str]) -> list[Row]:
    """A row for each baseline that has the metric of the first objective, over the folds of its split."""
    found: dict[tuple[str, str], list[Found]] = {}
    for place in sorted(SweepFolder(path).baselines.glob("*_*")):
        folder = RunFolder(place)
        try:
            result = read_json(folder.result)
            key = str(result["series"]), str(result["baseline"])
        except (CheckpointError, KeyError):
            notes.append(f"{place.parent.name}/{place.name} is cut short or damaged and does not count")
            continue
        if number_at(result, objectives[0][0]) is not None:
            found.setdefault(key, []).append((folder, result))
    return [_row(name, folds, objectives, varied) for (_, name), folds in found.items()]


def contender(row: Row, path: Path, best: Contender) -> Contender | None:
    """The baseline on the cells of the best row; None where the two have no fold in common.

    It answers alike for every seed.
    """
    cells = [cell for cell in best.values if (None, cell[1]) in row.cells]
    if not cells:
        return None
    values = {cell: row.cells[None, cell[1]] for cell in cells}
    files = {cell: RunFolder(path / row.by_fold[cell[1]][0]).predictions for cell in cells}
    return Contender(row.trials[0], values, files, trained=False)


def _row(name: str, folds: Sequence[Found], objectives: Objectives, varied: Sequence[str]) -> Row:
    names = [f"{folder.path.parent.name}/{folder.path.name}" for folder, _ in folds]
    numbers = [[number_at(result, address) for _, result in folds] for address, _ in objectives]
    places = [result.get("fold") for _, result in folds]
    metrics = [result["validation"] for _, result in folds]
    return Row(
        values=dict.fromkeys(varied),
        trials=names,
        used=[],
        seeds=[],
        cells={(None, fold): number for fold, number in zip(places, numbers[0], strict=True) if number is not None},
        by_fold={fold: [one] for fold, one in zip(places, names, strict=True)},
        folds=folds[0][1].get("folds"),
        state=f"baseline {name}",
        early=0,
        lost="",
        error=None,
        objectives=[_mean(several) for several in numbers],
        deviation=None,
        metrics={key: fmean(one[key] for one in metrics) for key in metrics[0]},
        test={},
        benchmark={},
        seconds=_mean([number_at(result, "seconds") for _, result in folds]),
        tokens_per_s=None,
        peak_memory_bytes=None,
        predicted_memory_bytes=None,
        baseline=name,
    )


def _mean(numbers: Sequence[float | None]) -> float | None:
    given = [number for number in numbers if number is not None]
    return fmean(given) if len(given) == len(numbers) else None
