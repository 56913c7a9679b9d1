"""Rows tied with the best are trained again with fresh seeds, until the tie is broken or the share is spent."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from danube_sweep import paths
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError
from danube_sweep.results import rank
from danube_sweep.results.ranking_table import answer, nothing_learned
from danube_sweep.results.rows import Ranking, Row, winner
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.propose.grid_cells import shared
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.terminal.screen import Terminal


@dataclass(frozen=True)
class Round:
    """A trial more, with one fresh seed, for each fold of each of some rows."""

    seed: int
    rows: list[Row]
    """The best, and those tied with it that the budget has room for."""
    entries: list[Entry]
    """For each new trial one of its row and fold."""
    steps: int
    seconds: float
    room_steps: float
    """Steps that may still be spent, this round's included."""

    @property
    def rounds(self) -> int:
        """How many rounds like this there is room for."""
        return int(self.room_steps // self.steps)


def confirm(folder: SweepFolder, sweep: Sweep, terminal: Terminal, train: Callable[[], bool]) -> None:
    """Adds and trains rounds until the best row is told apart or `sweep.confirm_share` of the sweep's steps is spent.

    `train` runs the folder's open trials and returns whether to go on. The ranking before the first round is kept in
    confirm.json.
    """
    more = True
    while more:
        ranking = rank.rank_sweep(folder.path)
        coming = next_round(ranking, folder, sweep)
        if coming is None:
            left = sum(state_of(entry) is None for entry in folder.entries())
            if tied(ranking):
                why = "what it may spend is spent"
                if left:
                    why = f"{left} trial{'s have' if left > 1 else ' has'} not ended"
                terminal.note(f"sweep.confirm: {why}; the rows are tied")
            return
        with folder.locked():
            common = shared([entry.overrides for entry in folder.entries()])
            added = folder.add(_trials(coming), common, confirms=True)
            _record(folder, answer(ranking), [entry for entry, _ in added])
        terminal.note(f"confirming: {len(added)} trials of {len(coming.rows)} tied rows with seed {coming.seed}")
        more = train()


def tied(ranking: Ranking) -> list[Row]:
    """The rows that cannot be told from the best, the best first. Empty if the best is told apart."""
    best = winner(ranking)
    whole = [row for row in ranking.rows if row.used and not row.pruned and not row.lost and row is not best]
    ties = [row for row in whole if row.tie]
    return [best, *ties] if best is not None and ties else []


def next_round(ranking: Ranking, folder: SweepFolder, sweep: Sweep) -> Round | None:
    """The next round, or None: nothing is tied, trials are open, several metrics rank, or nothing may be spent."""
    entries = folder.entries()
    rows = tied(ranking)
    if not rows or len(ranking.objectives) > 1 or any(state_of(entry) is None for entry in entries):
        return None
    results = {entry.path.name: entry.folder.result_fields() for entry in entries}
    steps = {name: int(found.get("steps") or 0) for name, found in results.items()}
    own = sum(steps[entry.path.name] for entry in entries if not entry.confirms)
    room = sweep.confirm_share * own - sum(steps[entry.path.name] for entry in entries if entry.confirms)
    named = {entry.path.name: entry for entry in entries}
    chosen, again, cost = [], [], 0
    for row in rows:
        trials = [names[0] for names in row.by_fold.values()]
        cost += sum(steps[name] for name in trials)
        if cost > room:
            cost -= sum(steps[name] for name in trials)
            break
        chosen.append(row)
        again += [named[name] for name in trials]
    if len(chosen) < 2:
        return None
    seeds = [seed for row in ranking.rows for seed in row.seeds]
    seconds = sum(_seconds(results[entry.path.name]) for entry in again)
    return Round(max(seeds, default=0) + 1, chosen, again, max(cost, 1), seconds, room)


def offer(ranking: Ranking, folder: SweepFolder, sweep: Sweep) -> str | None:
    """A line that offers to confirm a tie, with its predicted cost; None if there is nothing to confirm."""
    coming = None if nothing_learned(ranking) else next_round(ranking, folder, sweep)
    if coming is None:
        return None
    trials, minutes = coming.rounds * len(coming.entries), coming.rounds * coming.seconds / 60
    command = f"danube-sweep resume {shlex.quote(str(paths.from_here(folder.path)))} sweep.confirm=auto"
    return (
        f"tied rows can be trained again with fresh seeds: {command} "
        f"(at most {trials} trials, about {max(1, round(minutes))} min)"
    )


def _seconds(result: dict[str, Any]) -> float:
    measured = result.get("measured", {}).get("seconds", {})
    return float(sum(measured.get(name) or 0.0 for name in ("train", "validation")))


def _trials(coming: Round) -> list[tuple[Config, list[str], None]]:
    found = []
    for entry in coming.entries:
        kept = [one for one in entry.overrides if one.lstrip("+").partition("=")[0] != "seed"]
        config = replace(load_config(entry.folder.config), seed=coming.seed)
        found.append((config, [*kept, f"seed={coming.seed}"], None))
    return found


def _record(folder: SweepFolder, before: str, added: Sequence[Entry]) -> None:
    known: dict[str, Any] = {"before": before, "trials": []}
    with suppress(CheckpointError):
        known = read_json(folder.confirmed) if folder.confirmed.is_file() else known
    names = [*known["trials"], *(entry.path.name for entry in added)]
    write_json(folder.confirmed, {**known, "trials": list(dict.fromkeys(names))})
