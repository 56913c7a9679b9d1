"""`danube-sweep decide`: a rule fitted on validation or out-of-fold predictions, judged, and kept with the model."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from danube_sweep.config.blended_target import blended_target
from danube_sweep.config.schema import Target
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.results.decisions.judge_rules import Judged, judged_from, rule_of, wanted_metric, worth_of
from danube_sweep.results.decisions.rules import Cuts, Rule, described, rule_from
from danube_sweep.results.ranking_table import plain
from danube_sweep.results.winning_run import winning_run
from danube_sweep.storage import predictions
from danube_sweep.storage.decision_file import NAME, read_decisions, write_decisions
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.ownership import Kind, check
from danube_sweep.storage.refit_file import NAME as REFIT
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.soup_file import is_soup
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.terminal.screen import Terminal


@dataclass(frozen=True)
class Decided:
    """The rule for a folder's labels, and a line on its score."""

    rule: Rule
    classes: list[str]
    """Of numbers, their grades."""
    said: str


def run_decide(directory: Path, metric: str | None, source: Path | None, terminal: Terminal) -> None:
    """Fits, judges, shows and keeps a rule, in decisions.json of the run or ensemble.

    `source`: a parquet of `danube-sweep oof` instead of the folder's own predictions. A rule that gains nothing on
    unseen rows is not kept. Raises CheckpointError, ConfigError, DiskError.
    """
    folder, notes = _folder_of(directory)
    for note in notes:
        terminal.note(note)
    target = _target_of(folder)
    wanted = wanted_metric(target, metric)
    read = source or folder / "predictions.parquet"
    judged = _read(read, target, folder)
    if not judged.grouped:
        terminal.note(
            plain(
                f"{read} has no groups, so each row counts alone; with rows of one prompt or text the interval "
                "is too narrow"
            )
        )
    if source is not None and (own := folder / "predictions.parquet").is_file():
        _check_classes(judged, _read(own, target, folder), source)
    if source is None and (kind := _chosen_kind(folder)) is not None:
        terminal.note(f"these rows also chose the {kind}, so both scores are somewhat too good")
    worth = worth_of(judged, wanted)
    said = worth.said(wanted)
    terminal.note(f"{len(judged.groups_N):,} rows: {said}")
    if not worth.after > worth.before:
        (folder / NAME).unlink(missing_ok=True)
        terminal.note(f"no rule is kept: it gains nothing on unseen rows, so {_plainly(target)} stays")
        return
    rule = rule_of(judged, wanted)
    _show(rule, judged, terminal)
    kept = {"metric": wanted.name, "classes": judged.classes, "rule": described(rule), "rows": len(judged.groups_N)}
    write_decisions(folder, {**kept, "worth": asdict(worth), "said": said})
    terminal.note(
        plain(f"{folder / NAME}: used by danube-sweep predict {directory} test.csv -o submission.csv --labels")
    )


def read_rule(folder: Path, target: Target, classes: list[str]) -> Decided | None:
    """The rule that is kept with a run or an ensemble; None without one. Raises CheckpointError for a damaged one."""
    stored = read_decisions(folder)
    if stored is None:
        return None
    try:
        rule, names = rule_from(stored["rule"]), [str(one) for one in stored["classes"]]
        fits = len(rule.numbers) == len(names) - 1 if isinstance(rule, Cuts) else names == classes
        if not fits or (target is not Target.number and names != classes):
            raise ValueError("other classes")
        return Decided(rule, names, f"{stored['metric']}: {stored['said']}")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / NAME} is damaged; make it again with danube-sweep decide {folder}") from error


def _folder_of(directory: Path) -> tuple[Path, list[str]]:
    if EnsembleFolder(directory).file.is_file():
        check(directory, Kind.ensemble)
        return directory, []
    notes = []
    if SweepFolder(directory).file.is_file():
        directory, said = winning_run(directory)
        notes = [said]
    run = RunFolder(directory)
    if not run.config.is_file():
        raise CheckpointError(f"{directory} is no run, sweep or ensemble; give the folder of one")
    if not run.result.is_file():
        raise CheckpointError(f"{directory} is not finished; finish it with: danube-sweep resume {directory}")
    check(directory, Kind.run)
    return directory, notes


def _chosen_kind(folder: Path) -> str | None:
    if (ensemble := EnsembleFolder(folder)).file.is_file():
        return None if ensemble.refitted else "ensemble"
    return "soup" if is_soup(folder) else None


def _target_of(folder: Path) -> Target:
    ensemble = EnsembleFolder(folder)
    runs = [member.runs[0] for member in ensemble.read()] if ensemble.file.is_file() else [folder]
    if gone := [run for run in runs if not RunFolder(run).config.is_file()]:
        raise CheckpointError(f"{ensemble.file}: the run {gone[0]} is gone; bring it back, or make the ensemble again")
    return blended_target([load_config(RunFolder(run).config) for run in runs], str(folder))


def _read(file: Path, target: Target, folder: Path) -> Judged:
    if not file.is_file():
        source = "its sweep, or of its folds," if (folder / REFIT).is_file() else "the model"
        raise ConfigError(
            f"{file} is missing, and a rule is fitted on predictions of rows with labels; give those of {source} by "
            "--predictions, like the file of danube-sweep oof"
        )
    try:
        return judged_from(predictions.read(file), target, str(file))
    except predictions.DAMAGED as error:
        raise CheckpointError(
            f"{file} is damaged, or holds no predictions of this kind of head; give a parquet of danube-sweep oof or a "
            "run's predictions.parquet"
        ) from error


def _check_classes(given: Judged, own: Judged, source: Path) -> None:
    if given.target is not Target.number and given.classes != own.classes:
        raise ConfigError(f"--predictions {source}: its classes are not those of the model; give predictions of it")


def _plainly(target: Target) -> str:
    return {
        Target.ordered: "the median class",
        Target.many: "a threshold of 0.5",
        Target.number: "the nearest grade",
    }.get(target, "the likeliest class")


def _show(rule: Rule, judged: Judged, terminal: Terminal) -> None:
    numbers: list[Any] = [f"{one:+.3f}" if rule.kind == "biases" else f"{one:.3f}" for one in rule.numbers]
    names = judged.classes
    if rule.kind == "cuts":
        names = [f"{low} | {high}" for low, high in pairwise(names)]
    elif rule.kind == "outside":
        names = ["O"]
    pairs = [f"{name} {number}" for name, number in zip(names, numbers, strict=True)]
    more = f" and {len(pairs) - 12} more" if len(pairs) > 12 else ""
    terminal.note(plain(f"{rule.kind}: {', '.join(pairs[:12])}{more}"))
