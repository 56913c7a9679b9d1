"""The end of a sweep: the winner's test part, the ranking in its files and on the terminal."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from danube_sweep.config.schema import Sweep
from danube_sweep.config.stored import load_config, load_sweep
from danube_sweep.errors import BusyError, CheckpointError, DiskError
from danube_sweep.results import rank, ranking_files, ranking_table
from danube_sweep.results.rows import Ranking, winner
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.locks import FolderLock
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.confirm import offer
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.execute.slots import find_slots
from danube_sweep.sweeping.execute.train_baselines import train_baselines
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.terminal.screen import Terminal

OFFLINE = "wandb/offline-run-*"
POLL_S = 0.5


def conclude(folder: SweepFolder, sweep: Sweep, terminal: Terminal, stopping: Callable[[], bool]) -> None:
    """Ranks the trials so far. Once all trials have ended, the winner is first scored on its test part, if any."""
    entries = folder.entries()
    if not entries:
        return
    if folder.history.is_file():  # a search may have drawn other splits
        train_baselines(folder, sweep, terminal, stopping)
    if sweep.score_test and not stopping() and all(state_of(entry) is not None for entry in entries):
        try:
            _score_winner(folder, entries, terminal, stopping)
        except DiskError as error:  # the sweep is scored when it is resumed
            terminal.note(str(error))
    show_ranking(folder.path, terminal)
    if any(folder.path.glob(f"*/{OFFLINE}")):
        place = shlex.quote(str(folder.path))
        terminal.note(f"W&B: upload the offline runs with: wandb sync {place}/*/{OFFLINE}")


def show_ranking(path: Path, terminal: Terminal, *, overwrite: bool = False) -> None:
    """Prints the ranking of a sweep folder and rewrites ranking.csv and ranking.md; others' only if asked to.

    Raises CheckpointError for a folder that is not a sweep.
    """
    ranking = rank.rank_sweep(path)
    try:
        ranking_files.write(ranking, path, overwrite=overwrite)
    except DiskError as error:
        terminal.note(str(error))
    terminal.show(ranking_table.ranking_table(ranking, terminal.width))
    for line in ranking_table.lines_below(ranking):
        terminal.note(line)
    if offered := _offer(ranking, path):
        terminal.note(offered)


def _offer(ranking: Ranking, path: Path) -> str | None:
    folder = SweepFolder(path)
    settings = folder.read().get("settings") if folder.file.is_file() else None
    if not settings:  # Hydra's own launchers, or a W&B agent: there is nothing to resume
        return None
    return offer(ranking, folder, load_sweep(settings)[0])


def _score_winner(folder: SweepFolder, entries: list[Entry], terminal: Terminal, stopping: Callable[[], bool]) -> None:
    lock = FolderLock(folder.path / ".test.lock", timeout_s=0, outlasts=True)
    try:
        with lock:
            _score_unscored(folder, entries, terminal, stopping)
    except (Timeout, BusyError):
        terminal.note("another process scores the winner on its test part")


def _score_unscored(
    folder: SweepFolder, entries: list[Entry], terminal: Terminal, stopping: Callable[[], bool]
) -> None:
    best = winner(rank.rank_sweep(folder.path))
    file = folder.path / "test.json"
    known: dict[str, Any] = {}
    with suppress(CheckpointError, KeyError):  # cut short, it is written anew
        known = read_json(file)["trials"] if file.is_file() else {}
    for entry in entries:
        if best is None or entry.hash is None or entry.hash in known or entry.path.name not in best.trials:
            continue
        result = entry.folder.result_fields()
        metrics = _scored(entry, terminal, stopping) if result.get("rows", {}).get("test") else None
        if metrics is not None:
            known[entry.hash] = metrics
            write_json(file, {"trials": known})


def _scored(entry: Entry, terminal: Terminal, stopping: Callable[[], bool]) -> dict[str, float] | None:
    config = load_config(entry.folder.config)
    slots = find_slots(Sweep(slots=1), {config.device.accelerator})
    scoring = Pool(on_cpu=slots.on_cpu).start(
        child_process.score_task, Job(entry.path, Path.cwd(), slots.environment(0), config, slots.threads)
    )
    try:
        while not scoring.link.poll(POLL_S):
            if stopping():
                return None
        return dict(scoring.link.recv())
    except (EOFError, OSError, TypeError, ValueError):
        terminal.note(f"{entry.path.name}: its test part could not be scored; see {entry.folder.log}")
        return None
    finally:
        scoring.kill()
        scoring.reap()
