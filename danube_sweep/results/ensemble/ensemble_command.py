"""`danube-sweep ensemble`: members chosen, judged on unseen rows, shown and kept."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from danube_sweep.config.schema import Target
from danube_sweep.errors import CheckpointError
from danube_sweep.results.answers import Answers, Codes
from danube_sweep.results.ensemble.held_out import Chooser, Estimate, held_out
from danube_sweep.results.ensemble.members import (
    Member,
    check_members,
    find_members,
    losses,
    parts_as_answered,
    parts_at,
    tempered,
)
from danube_sweep.results.ensemble.selection import (
    Blend,
    Pool,
    best_single,
    greedy,
    mean_of_best,
    temperature_value,
)
from danube_sweep.results.ranking_table import plain
from danube_sweep.storage import predictions
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.ownership import Kind, check
from danube_sweep.storage.predictions import Answered, Floats
from danube_sweep.storage.soup_file import is_soup
from danube_sweep.terminal.screen import Terminal

Scores = dict[str, Any]
SINGLE, GREEDY, AUTO = "best single", "greedy", "auto"


@dataclass(frozen=True)
class Wanted:
    """How an ensemble is made: `top` are the members of the mean, `most` those considered."""

    method: str = AUTO
    """`greedy`, `mean`, or `auto` for the better of them on unseen rows."""
    top: int = 5
    most: int = 40


def run_ensemble(directories: Sequence[Path], output: Path, wanted: Wanted, terminal: Terminal) -> None:
    """Chooses the members and weights, scores them, prints the result and writes the ensemble's folder.

    Raises CheckpointError for folders that are no runs or sweeps and for an `output` that is not ours, ConfigError if
    fewer than two models can be blended, DiskError.
    """
    _check_output(output, directories)
    members, notes = find_members(directories)
    groups_N = check_members(members)
    members, pool = _considered(members, groups_N, wanted.most, notes)
    notes += _of_soups(members)
    for note in notes:
        terminal.note(plain(note))
    top = min(wanted.top, len(members))
    mean = f"mean of the best {top}"
    choosers: dict[str, Chooser] = {
        SINGLE: best_single,
        mean: lambda pool, rows: mean_of_best(pool, rows, top),
        GREEDY: greedy,
    }
    everything = np.arange(len(groups_N))
    blends = {name: choose(pool, everything) for name, choose in choosers.items()}
    estimates = held_out(pool, choosers, SINGLE)
    better = min((mean, GREEDY), key=lambda name: estimates[name].loss)
    chosen = {AUTO: better, GREEDY: GREEDY}.get(wanted.method, mean)
    terminal.show(_scores(pool, blends, estimates))
    terminal.show(_weights(members, blends[chosen], pool))
    terminal.note(plain(_verdict(chosen, estimates[chosen])))
    scores = {name: asdict(one) for name, one in estimates.items()}
    used = _weighted(members, blends[chosen], pool)
    EnsembleFolder(output).write(used, scores, chosen)
    _write_answers(EnsembleFolder(output), members, blends[chosen], pool)
    terminal.note(plain(f"{output}: {chosen}; predict with: danube-sweep predict {output} test.csv -o submission.csv"))


def _check_output(output: Path, directories: Sequence[Path]) -> None:
    if any(output.resolve() == directory.resolve() for directory in directories):
        raise CheckpointError(f"-o {output} is one of the folders that are read; choose another place by -o")
    check(output, Kind.ensemble)
    if not output.absolute().parent.is_dir():
        raise CheckpointError(f"-o {output}: there is no folder {output.parent}; make it or choose another place")


def _considered(members: list[Member], groups_N: Codes, most: int, notes: list[str]) -> tuple[list[Member], Pool]:
    """The best members, best first, and their answers."""
    numbers = members[0].answers.numbers_N is not None
    own = [float(losses(parts_as_answered(one.answers), numbers=numbers).mean()) for one in members]
    order = np.argsort(own, kind="stable")
    if len(members) > most:
        notes.append(f"the best {most} of {len(members)} models are considered (--candidates)")
    kept = [members[place] for place in order[:most]]
    return kept, Pool([parts_at(one.answers) for one in kept], groups_N, numbers)


def _of_soups(members: Sequence[Member]) -> list[str]:
    soups = [one.name for one in members if any(is_soup(run) for run in one.runs)]
    if not soups:
        return []
    return [f"soups, whose trials these rows chose, so no row is unseen to them: {'; '.join(soups)}"]


def _verdict(name: str, found: Estimate) -> str:
    low, high = found.difference - found.half, found.difference + found.half
    between = f"{found.difference:+.4f}, 95 % {low:+.4f} .. {high:+.4f}"
    if found.better:
        return f"{name} is better than the best single model on unseen rows: {between}"
    if low > 0:
        return f"{name} is worse than the best single model on unseen rows: {between}"
    return f"{name} is no better than the best single model, by more than chance, on unseen rows: {between}"


def _scores(pool: Pool, blends: dict[str, Blend], estimates: dict[str, Estimate]) -> Table:
    loss = "squared error" if pool.numbers else "log loss"
    table = Table(title=Text(f"validation {loss}", style="bold"), title_justify="left", box=None, pad_edge=False)
    for title in ("", "same rows", "unseen rows", "vs best single", "95 %"):
        table.add_column(Text(title, style="cyan"), justify="right" if title else "left")
    everything = np.arange(len(pool.groups_N))
    for name, found in estimates.items():
        low, high = found.difference - found.half, found.difference + found.half
        apart = ["", ""] if name == SINGLE else [f"{found.difference:+.4f}", f"{low:+.4f} .. {high:+.4f}"]
        own = blends[name].losses(pool, everything).mean()
        table.add_row(name, f"{own:.4f}", f"{found.loss:.4f}", *apart)
    return table


def _weights(members: Sequence[Member], blend: Blend, pool: Pool) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("weight", "temperature", "member"):
        table.add_column(Text(title, style="cyan"), justify="left" if title == "member" else "right")
    for place in np.argsort(-blend.weights_M, kind="stable"):
        if blend.weights_M[place]:
            temperature = temperature_value(int(blend.temperatures_M[place]), numbers=pool.numbers)
            table.add_row(f"{blend.weights_M[place]:.2f}", f"{temperature:.2f}", Text(plain(members[place].name)))
    return table


def _used(members: Sequence[Member], blend: Blend, pool: Pool) -> list[tuple[Member, float, float]]:
    """The members with a weight, that weight, and their temperature."""
    return [
        (member, float(weight), temperature_value(int(place), numbers=pool.numbers))
        for member, weight, place in zip(members, blend.weights_M, blend.temperatures_M, strict=True)
        if weight
    ]


def _weighted(members: Sequence[Member], blend: Blend, pool: Pool) -> list[Weighted]:
    return [
        Weighted(member.name, weight, temperature, member.runs, [str(trial.hash) for trial in member.trials])
        for member, weight, temperature in _used(members, blend, pool)
    ]


def _write_answers(folder: EnsembleFolder, members: Sequence[Member], blend: Blend, pool: Pool) -> None:
    used = _used(members, blend, pool)
    answers_NA = np.sum([weight * _answers_at(member, temperature) for member, weight, temperature in used], axis=0)
    losses_N = blend.losses(pool, np.arange(len(pool.groups_N)))
    asked = members[0].answers
    target, labels_NC = _truth(asked)
    answered = Answered(asked.ids.to_pylist(), losses_N, labels_NC, asked.weights_N, answers_NA, asked.groups_N)
    predictions.write(folder.predictions, target, asked.classes, answered)


def _answers_at(member: Member, temperature: float) -> Floats:
    answers = member.answers
    if answers.numbers_N is not None:
        return answers.numbers_N[:, None]
    assert answers.probabilities_NC is not None
    return tempered(answers.probabilities_NC, temperature, shares=answers.labels_N is not None)


def _truth(asked: Answers) -> tuple[Target, Floats]:
    """The targets, in the form from which predictions are written. Words are written like rows."""
    if asked.wanted_N is not None:
        return Target.number, asked.wanted_N[:, None]
    if asked.labels_NC is not None:
        return Target.many, asked.labels_NC
    assert asked.labels_N is not None
    return Target.one, np.eye(len(asked.classes))[asked.labels_N]
