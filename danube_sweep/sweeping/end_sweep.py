"""The end of a sweep: the winner's test scores, the ranking in its files and on the terminal."""

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from danube_sweep.benchmark.scored_parts import tasks_on_test
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.schema.states import State
from danube_sweep.config.stored import load_config, load_sweep
from danube_sweep.errors import BusyError, CheckpointError, ConfigError, DiskError
from danube_sweep.results import rank, ranking_files, ranking_table
from danube_sweep.results.rows import Ranking, refuse_unread, winner
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.locks import FolderLock
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.confirm import offer
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Failed, Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.execute.slots import find_slots
from danube_sweep.sweeping.execute.train_baselines import train_baselines
from danube_sweep.sweeping.propose.next_trial import state_of
from danube_sweep.terminal.screen import Terminal

OFFLINE = "wandb/offline-run-*"
POLL_S = 0.5


def conclude(folder: SweepFolder, sweep: Sweep, terminal: Terminal, stopping: Callable[[], bool]) -> None:
    """Ranks the trials so far. Once all have ended, the winner is first scored on its test part and test splits."""
    entries = folder.entries()
    if not entries:
        return
    if folder.history.is_file():  # a search may have drawn other splits
        train_baselines(folder, sweep, terminal, stopping)
    if sweep.score_test and not stopping() and all(state_of(entry) is not None for entry in entries):
        try:
            _score_winner(folder, entries, terminal, stopping)
        except (CheckpointError, ConfigError, DiskError) as error:  # the sweep is scored when it is resumed
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
            ranking = rank.rank_sweep(folder.path)
            refuse_unread(ranking)
            best = winner(ranking)
            mine = [] if best is None else [one for one in entries if one.hash and one.path.name in best.trials]
            for entry in mine:
                _score_unscored(folder.path / "test.json", entry, _Scoring(terminal, stopping))
    except (Timeout, BusyError):
        terminal.note("another process scores the winner on its test part")


def _score_unscored(file: Path, entry: Entry, scoring: "_Scoring") -> None:
    assert entry.hash is not None
    known: dict[str, Any] = {"trials": {}}
    with suppress(CheckpointError, KeyError, TypeError):  # cut short, it is written anew
        known = {"trials": {}, **read_json(file)} if file.is_file() else known
    result, config = entry.folder.result_fields(), load_config(entry.folder.config)
    if result.get("rows", {}).get("test") and entry.hash not in known["trials"]:
        metrics = scoring.run(child_process.score_task, entry, config, "its test part")
        if metrics is not None:
            known["trials"][entry.hash] = metrics
            write_json(file, known)
    held = known.setdefault("benchmarks", {})
    if entry.hash in held or not (tasks := _unscored_tasks(config, result)):
        return
    trainer = replace(config.trainer, benchmark=tasks, benchmark_test=True)
    about = f"trainer.benchmark=[{','.join(tasks)}]"
    scoring.terminal.note(f"{about}: scored on a test split, so now for the winner alone, {entry.path.name}")
    scores = scoring.run(child_process.benchmark_task, entry, replace(config, trainer=trainer), about)
    if scores is not None:
        held[entry.hash] = scores
        write_json(file, known)


def _unscored_tasks(config: Config, result: Mapping[str, Any]) -> list[str]:
    """The tasks on test splits that a finished trial has not been scored on; earlier versions scored every trial."""
    scored = any(one.get("split") == "test" for one in result.get("benchmark", {}).values())
    if scored or not config.trainer.benchmark or result.get("state") != State.finished.value:
        return []
    return tasks_on_test(config)


@dataclass(frozen=True)
class _Scoring:
    """Scores of finished trials, each in a process of its own."""

    terminal: Terminal
    stopping: Callable[[], bool]

    def run(self, task: child_process.Task, entry: Entry, config: Config, about: str) -> dict[str, Any] | None:
        """The answer of a child; None if it failed, which is noted, or was stopped."""
        slots = find_slots(Sweep(slots=1), {config.device.accelerator})
        child = Pool(on_cpu=slots.on_cpu).start(
            task, Job(entry.path, Path.cwd(), slots.environment(0), config, slots.threads)
        )
        why = ""
        try:
            while not child.link.poll(POLL_S):
                if self.stopping():
                    return None
            told = child.link.recv()
            if not isinstance(told, Failed):
                return dict(told)
            why = f"{told.reason}; "
        except (EOFError, OSError, TypeError, ValueError):
            pass
        finally:
            child.kill()
            child.reap()
        self.terminal.note(f"{entry.path.name}: {about} could not be scored; {why}see {entry.folder.log}")
        return None
