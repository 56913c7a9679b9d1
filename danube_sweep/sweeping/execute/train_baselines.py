"""The cheap rivals of a sweep, trained in a process of their own before its trials."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from danube_sweep.baseline.names import NAMES
from danube_sweep.config.identity import split_hash
from danube_sweep.config.schema import Baseline, Config, Sweep, Target
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DataError, DiskError
from danube_sweep.planner.present_gpu import VISIBLE
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Failed, Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.terminal.screen import Terminal

POLL_S = 0.5
TARGETS = frozenset({Target.one, Target.ordered, Target.many, Target.number})
"""The targets that a linear model on a text can predict."""
_GROUPS = ("data", "head", "experiment")
"""The options that decide which rows train and validate."""


def train_baselines(
    folder: SweepFolder, sweep: Sweep, terminal: Terminal, stopping: Callable[[], bool], drawn: Config | None = None
) -> None:
    """Trains the baselines that a split of the sweep lacks; their results are noted.

    `drawn`: a trial of a search that has none in the folder yet. One that fails is noted and costs no trial.
    """
    if sweep.baseline is Baseline.none:
        return
    configs = _one_each(folder.entries())
    for config in configs if drawn is None else [*configs, drawn]:
        if stopping():
            return
        if config.head.target not in TARGETS or not config.data.validates:
            continue
        try:
            split = split_hash(config)[:8]
        except DataError:  # its trial reports it
            continue
        if not all((folder.baselines / f"{split}_{name}").is_dir() for name in NAMES):
            _train(folder, split, config, terminal, stopping)


def _one_each(entries: Sequence[Entry]) -> list[Config]:
    """A trial for each choice of data and head among the trials."""
    chosen: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        if entry.hash is not None:
            chosen.setdefault(tuple(sorted(filter(_decides_split, entry.overrides))), entry)
    found = []
    for entry in chosen.values():
        try:
            found.append(load_config(entry.folder.config))
        except CheckpointError:  # the trial and the ranking tell
            continue
    return found


def _decides_split(override: str) -> bool:
    return override.lstrip("+~").partition("=")[0].partition(".")[0] in _GROUPS


def _train(folder: SweepFolder, split: str, config: Config, terminal: Terminal, stopping: Callable[[], bool]) -> None:
    log = folder.path / "baselines.log"
    environment = {**os.environ, VISIBLE: ""}
    job = Job(folder.baselines / split, Path.cwd(), environment, config, log=log)
    child = Pool(on_cpu=True).start(child_process.baseline_task, job)
    try:
        while not child.link.poll(POLL_S):
            if stopping():
                return
        told = child.link.recv()
        why = told.reason if isinstance(told, Failed) else None
    except (EOFError, OSError):
        why = f"its process died; see {log}"
    finally:
        child.kill()
        child.reap()
    if why is not None:
        terminal.note(f"no baseline: {why}")
        return
    for line in _results(folder.baselines, split):
        terminal.note(line)


def _results(folder: Path, split: str) -> list[str]:
    lines = []
    for place in sorted(folder.glob(f"{split}_*"), reverse=True):
        try:
            found = read_json(RunFolder(place).result)
        except (CheckpointError, DiskError):
            continue
        name, value = next(iter(found["validation"].items()))
        fold = "" if found["fold"] is None else f" on fold {found['fold']}"
        lines.append(f"baseline {found['baseline']}: {name} {value:.4f}{fold}, in {found['seconds']:.0f} s")
    return lines
