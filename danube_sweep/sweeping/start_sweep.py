"""Plan a grid or a search, run it, rank it. Every entry calls this; entries differ only in the source of trials."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from danube_sweep import paths
from danube_sweep.composer import Composer
from danube_sweep.config.identity import HASH_VERSION
from danube_sweep.config.schema import Baseline, Config, Confirm, NoPruner, Pruner, Sweep
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import plain_sweep
from danube_sweep.config.validate.check_sweep import check_validated, objectives
from danube_sweep.errors import ConfigError, Interrupted, SweepFailed
from danube_sweep.recovery import mend, tracked
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping import dry_run
from danube_sweep.sweeping.confirm import confirm
from danube_sweep.sweeping.end_sweep import conclude
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.asked_devices import of_devices, together
from danube_sweep.sweeping.execute.child_process import Task
from danube_sweep.sweeping.execute.chosen_count import slots_of
from danube_sweep.sweeping.execute.close_paused import close_paused
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.slots import Slots
from danube_sweep.sweeping.execute.train_baselines import train_baselines
from danube_sweep.sweeping.other_launchers import Launch, run_batches, say_ignored
from danube_sweep.sweeping.propose.early_stopping import EarlyStopping
from danube_sweep.sweeping.propose.fits_device import shrink, shrunk_rows
from danube_sweep.sweeping.propose.grid_cells import (
    check_cells,
    check_search,
    depends_on,
    refuse_swept_settings,
    shared,
)
from danube_sweep.sweeping.propose.next_trial import FolderSource, state_of
from danube_sweep.sweeping.propose.search import SearchSource
from danube_sweep.sweeping.propose.search_space import Search, described, recognised
from danube_sweep.sweeping.shared_sweep import as_worker, settle_locks
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.signals import StopRequest

Submit = Callable[[SweepFolder, Terminal], None]
"""Has a sweep's trials trained by workers on other machines, and returns when these have ended."""


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep that is ready to run."""

    folder: SweepFolder
    sweep: Sweep
    pruner: Pruner
    search: Search | None = None
    config_dir: Path | None = None
    config_name: str = "config"
    launch: Launch | None = None
    submit: Submit | None = None
    by_command: bool = False
    """Whether the same command continues it, where `resume` would train on this machine."""
    patient: bool = False
    """Whether only the first request to stop counts, as in a job that its scheduler signals more than once."""
    ranked: bool = True
    """Whether it ends in a ranking, and the winner's test score."""
    tracking: Mapping[str, str] = field(default_factory=dict)
    """W&B's group and mode for trials that leave them open. The default group is the folder's name."""
    counts: frozenset[int | str] = frozenset()
    """The device.count that this command asks for, which wins over that of earlier ones; empty for theirs."""


def plan_grid(
    path: Path,
    cells: Sequence[list[str]],
    composer: Composer,
    terminal: Terminal,
    launch: Launch | None = None,
    tracking: Mapping[str, str] | None = None,
) -> tuple[PlannedSweep, list[Entry]] | None:
    """Checks every cell and adds it to the sweep in `path`; returns the plan and each cell's entry, in their order.

    With sweep.dry_run it shows the cells, writes nothing and returns None. Raises ConfigError, before anything is
    written, if a cell has a mistake and they are not to be skipped.
    """
    sweep, pruner = _settings(cells, composer)
    checked = check_cells(cells, composer.trial, sweep)
    for config, _ in checked.valid:
        check_validated(sweep, pruner, config, searches=False)
    counts = frozenset(config.device.count for config, _ in checked.valid)
    folder = SweepFolder(path.absolute())
    plan = PlannedSweep(folder, sweep, pruner, launch=launch, tracking=tracking or {}, counts=counts)
    common = shared(cells)
    if sweep.dry_run and (checked.valid or checked.left_out):
        bad = [*checked.invalid, *checked.left_out]
        terminal.show(dry_run.grid_table(plan.folder, checked.valid, bad, common, sweep if launch is None else None))
    if checked.invalid and not sweep.skip_invalid:
        _refuse(checked.invalid, cells, terminal, shown=sweep.dry_run and bool(checked.valid))
    if sweep.dry_run:
        return None
    trials = [(_tracked(config, plan), overrides, None) for config, overrides in checked.valid]
    settle_locks(plan.folder, sweep)
    with plan.folder.locked(), plan.folder.whole_or_as_before():
        _check_same_kind(plan)
        mend(plan.folder, terminal.note)
        plan.folder.drop_invalid([overrides for _, overrides in checked.valid])
        invalid = plan.folder.add_invalid(checked.invalid, common)
        invalid += plan.folder.add_invalid(checked.left_out, common, left_out=True)
        valid = [entry for entry, _ in plan.folder.add(trials, common)]
        shrink_to_fit(plan, trials, valid, terminal)
        describe(plan)  # last: a folder without it is no sweep, and no trial of one is missing
    if (trials_left := len({entry.number for entry in valid})) < len(valid):
        terminal.note(f"{len(valid)} cells make {trials_left} trials: cells that mean the same run once")
    overrides = [*(one for _, one in checked.valid), *(one for one, _ in [*checked.invalid, *checked.left_out])]
    found = {tuple(one): entry for one, entry in zip(overrides, [*valid, *invalid], strict=True)}
    return plan, [found[tuple(cell)] for cell in cells]


def plan_trials(plan: PlannedSweep, trials: Sequence[tuple[Config, list[str]]]) -> list[Entry]:
    """Adds trials that are composed already; returns their entries, in the order given. Raises DiskError, …"""
    with plan.folder.locked(), plan.folder.whole_or_as_before():
        common = shared([overrides for _, overrides in trials]) if len(trials) > 1 else set()
        added = plan.folder.add([(config, overrides, None) for config, overrides in trials], common)
        describe(plan)
    return [entry for entry, _ in added]


def run_search(plan: PlannedSweep, composer: Composer, terminal: Terminal) -> None:
    """Draws and runs trials until there are `sweep.trials`; ends like `run_sweep`. With sweep.dry_run it only shows."""
    assert plan.search is not None
    first = check_search(plan.search, composer.trial, plan.sweep)
    check_validated(plan.sweep, plan.pruner, first, searches=True)
    if plan.sweep.dry_run:
        drawn = plan.folder.entries()
        terminal.show(dry_run.search_table(plan.search, plan.sweep, drawn, first if plan.launch is None else None))
        return
    settle_locks(plan.folder, plan.sweep)
    with plan.folder.locked():
        _check_same_kind(plan)
        mend(plan.folder, terminal.note)
        describe(plan)
    run_sweep(plan, terminal, composer)


def shrink_to_fit(
    plan: PlannedSweep, trials: Sequence[tuple[Config, list[str], None]], entries: Sequence[Entry], terminal: Terminal
) -> None:
    """Gives trials that do not fit the smaller micro-batch that does, if that is asked, with a line for each."""
    for (config, _, _), entry in zip(trials, entries, strict=True):
        rows = shrunk_rows(config, plan.sweep)
        if rows is not None and shrink(entry.folder, rows):
            terminal.note(f"{entry.path.name}: shrunk to trainer.micro_batch={rows}, as more does not fit")


def run_sweep(
    plan: PlannedSweep, terminal: Terminal, composer: Composer | None = None, task: Task = child_process.train_task
) -> None:
    """Runs a sweep's open trials to their end, ranks and, if all have ended, scores the winner on its test part.

    Raises Interrupted if it was stopped and SweepFailed unless every trial finished or was pruned.
    """
    _say_version(plan, terminal)
    if plan.submit is not None:
        _run_elsewhere(plan, plan.submit, terminal)
        return
    source, drawn = _source(plan, composer), _drawn(plan, composer)
    if plan.launch is not None:
        train_baselines(plan.folder, plan.sweep, terminal, lambda: False, drawn)
        say_ignored(plan.sweep, plan.pruner, terminal)
        try:
            run_batches(plan.sweep.slots, source, plan.launch, terminal)
        finally:
            conclude(plan.folder, plan.sweep, terminal, lambda: False)
        _raise_unless_complete(plan)
        return
    count, accelerators = together(plan.folder, drawn, plan.counts), of_devices("accelerator", plan.folder, drawn)
    may_leave = plan.search is None and plan.sweep.workers == 1 and isinstance(plan.pruner, NoPruner)
    found = slots_of(plan.sweep, accelerators, count, source, drawn, terminal, may_leave=may_leave)
    with as_worker(plan.folder, plan.sweep, terminal), StopRequest(patient=plan.patient) as stop:
        train_baselines(plan.folder, plan.sweep, terminal, stop, drawn)
        began_s = time.monotonic()

        def train(source: FolderSource | SearchSource, slots: Slots = found.slots, last: int = 0) -> None:
            try:
                Executor(source, _until_deadline(plan.sweep, began_s), slots, terminal, stop, task, last).run()
            except SweepFailed as error:  # a disk that stayed full
                place = paths.from_here(plan.folder.path)
                raise SweepFailed(f"{error}; free some space, then: danube-sweep resume {place}") from error

        def train_again() -> bool:
            train(FolderSource(plan.folder))
            return not stop()

        try:
            train(source, last=found.last)
            if found.together is not None and not stop():
                train(source, found.together)
            for line in source.told() if isinstance(source, SearchSource) else []:
                terminal.note(line)
            if not stop() and source.is_settled():
                close_paused(plan.folder, terminal, source.heard)
            if plan.sweep.confirm is Confirm.auto and not stop():
                confirm(plan.folder, plan.sweep, terminal, train_again)
        finally:
            if plan.ranked:
                conclude(plan.folder, plan.sweep, terminal, stop)
    if stop.signal_number is not None:
        raise Interrupted(f"go on with: danube-sweep resume {paths.from_here(plan.folder.path)}", stop.signal_number)
    _raise_unless_complete(plan)


def _run_elsewhere(plan: PlannedSweep, submit: Submit, terminal: Terminal) -> None:
    # The workers train the baselines and score the winner.
    ended: Interrupted | SweepFailed | None = None
    try:
        submit(plan.folder, terminal)
    except (Interrupted, SweepFailed) as error:  # what has finished is ranked all the same
        ended = error
    conclude(plan.folder, replace(plan.sweep, score_test=False, baseline=Baseline.none), terminal, lambda: False)
    if ended is not None:
        raise ended
    _raise_unless_complete(plan)


def _until_deadline(sweep: Sweep, began_s: float) -> Sweep:
    if sweep.deadline_h is None:
        return sweep
    return replace(sweep, deadline_h=max(1e-9, sweep.deadline_h - (time.monotonic() - began_s) / 3600))


# -------------------------------------------------------------------------------------------------------- planning


def _settings(cells: Sequence[list[str]], composer: Composer) -> tuple[Sweep, Pruner]:
    common = shared(cells)
    varied = {one.lstrip("+").partition("=")[0] for cell in cells for one in cell if one not in common}
    refuse_swept_settings(varied)
    return composer.sweep([one for one in cells[0] if one in common and not depends_on(one, varied)])


def _refuse(
    invalid: Sequence[tuple[list[str], str]], cells: Sequence[list[str]], terminal: Terminal, *, shown: bool
) -> None:
    common = shared(cells) if len(cells) > 1 else set()
    said = [f"{' '.join(one for one in overrides if one not in common)}: {error}" for overrides, error in invalid]
    if len({error for _, error in invalid}) == 1 and len(invalid) == len(cells):
        raise ConfigError(invalid[0][1])  # nothing that varies is to blame
    if not shown:
        for line in said[1:]:
            terminal.note(line)
    more = "" if len(invalid) == 1 else f" (and {len(invalid) - 1} more, above)"
    way_out = "" if len(invalid) == len(cells) else "; correct it or give sweep.skip_invalid=true"
    raise ConfigError(f"{len(invalid)} of {len(cells)} cells cannot train: {said[0]}{more}{way_out}")


def _tracked(config: Config, plan: PlannedSweep) -> Config:
    return tracked(config, plan.folder.path, plan.tracking)


def describe(plan: PlannedSweep, before: Mapping[str, Any] | None = None) -> None:
    """Writes sweep.json; over one that is there (`before`), metric and goal alone. To be called while `locked`."""
    search = plan.search
    if before is not None:
        ranked = {"metric": plan.sweep.metric, "goal": plan.sweep.goal}
        settings = before.get("settings") or plain_sweep(plan.sweep, plan.pruner)
        plan.folder.write({**before, "settings": {**settings, "sweep": {**settings["sweep"], **ranked}}})
        return
    plan.folder.write(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "settings": plain_sweep(plan.sweep, plan.pruner),
            "search": None if search is None else {"fixed": search.fixed, "space": described(search.space)},
            "config_dir": None if plan.config_dir is None else str(plan.config_dir),
            "config_name": plan.config_name,
            "tracking": dict(plan.tracking),
            "ranked": plan.ranked,
        }
    )


def _check_same_kind(plan: PlannedSweep) -> None:
    if not plan.folder.file.is_file():
        return
    stored = plan.folder.read().get("search")
    space = None if stored is None else recognised(stored["space"])
    if space != (None if plan.search is None else plan.search.space):
        raise ConfigError(f"{plan.folder.path} holds another sweep; give another hydra.sweep.dir")


# --------------------------------------------------------------------------------------------------------- running


def _source(plan: PlannedSweep, composer: Composer | None) -> FolderSource | SearchSource:
    folder = plan.folder.watched()
    early = None if isinstance(plan.pruner, NoPruner) else EarlyStopping(folder, plan.pruner, plan.sweep)
    if plan.search is None:
        return FolderSource(folder, plan.sweep.retry, early=early)
    from danube_sweep.sweeping.propose.optuna_journal import OptunaJournal

    assert composer is not None
    journal = OptunaJournal(plan.folder.history, objectives(plan.sweep))

    def compose(overrides: Sequence[str]) -> Config:
        return _tracked(composer.trial(overrides), plan)

    return SearchSource(folder, plan.search, plan.sweep, journal, compose, early)


def _say_version(plan: PlannedSweep, terminal: Terminal) -> None:
    version = plan.folder.hash_version()
    if version < HASH_VERSION:
        terminal.note(
            f"this sweep was begun by version {version} of the hashes and keeps them; its finished trials stay, and "
            "the others train by today's arithmetic"
        )


def _drawn(plan: PlannedSweep, composer: Composer | None) -> Config | None:
    """A trial of a search; None for a grid, whose trials are in its folder."""
    if plan.search is None or composer is None:
        return None
    return check_search(plan.search, composer.trial, plan.sweep)


def _raise_unless_complete(plan: PlannedSweep) -> None:
    states = [(entry.hash, state_of(entry)) for entry in plan.folder.entries() if not _left_out(entry)]
    bad = [(identity, state) for identity, state in states if state not in COMPLETE]
    again = [state for identity, state in bad if identity is not None]
    if bad:
        mended = any(again) or len(again) < len(bad)
        place = paths.from_here(plan.folder.path)
        goes_on = f": danube-sweep resume {place}" + (" --retry all" if mended else "")
        if plan.by_command:
            goes_on = f" the same command and hydra.sweep.dir={place}" + (" 'sweep.retry=[all]'" if mended else "")
        raise SweepFailed(f"{len(bad)} of {len(states)} trials did not finish; go on with{goes_on}")


def _left_out(entry: Entry) -> bool:
    return entry.hash is None and bool(entry.folder.result_fields().get("left_out"))
