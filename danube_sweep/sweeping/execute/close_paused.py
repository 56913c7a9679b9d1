"""The end of trials that are paused when a sweep closes: they become pruned, with the result they were paused with."""

import os
from collections.abc import Callable
from pathlib import Path

from danube_sweep.config.schema import NoTracking
from danube_sweep.config.schema.states import State
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.planner.present_gpu import VISIBLE
from danube_sweep.storage.checkpoint_places import remove_checkpoints
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import Entry, SweepFolder
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Failed, Job
from danube_sweep.sweeping.execute.process_pool import Pool
from danube_sweep.sweeping.propose.next_trial import claimed, paused_result
from danube_sweep.terminal.screen import Terminal


def close_paused(folder: SweepFolder, terminal: Terminal, heard: Callable[[Entry], None]) -> None:
    """Prunes the paused trials, and calls `heard` for each. Does nothing while a trial of the sweep waits or trains.

    One whose paused.json is damaged continues when the sweep is resumed.
    """
    with folder.locked():
        entries = [entry for entry in folder.entries() if not entry.folder.result.is_file()]
        if not entries or not all(entry.folder.paused.is_file() for entry in entries):
            return
        notes: list[str] = []
        closed = [entry for entry in entries if _close(entry, notes)]
    for line in notes:
        terminal.note(line)
    for entry in closed:
        heard(entry)
        _tell_tracker(entry, terminal)
    if closed:
        terminal.note(f"{len(closed)} paused trial{'s are' if len(closed) > 1 else ' is'} pruned: the sweep ends here")


def _close(entry: Entry, notes: list[str]) -> bool:
    if (lock := claimed(entry)) is None:  # another process has just promoted it
        return False
    try:
        result = paused_result(entry, notes)
        if result is None:
            return False
        write_json(entry.folder.result, {**result, "state": State.pruned.value})
        entry.folder.paused.unlink(missing_ok=True)
        remove_checkpoints(entry.folder)
        return True
    except (CheckpointError, DiskError) as error:
        notes.append(f"{entry.path.name} stays paused: {error}")
        return False
    finally:
        lock.release()


def _tell_tracker(entry: Entry, terminal: Terminal) -> None:
    """Ends the trial's run in W&B or TensorBoard, in a process of its own."""
    try:
        config = load_config(entry.folder.config)
    except CheckpointError:  # the ranking reports it
        return
    if isinstance(config.tracking, NoTracking):
        return
    environment = {**os.environ, VISIBLE: ""}
    job = Job(entry.path, Path.cwd(), environment, config, log=entry.folder.log)
    child = Pool(on_cpu=True).start(child_process.publish_task, job)
    try:
        told = child.link.recv()
        why = told.reason if isinstance(told, Failed) else None
    except (EOFError, OSError):
        why = f"see {entry.folder.log}"
    finally:
        child.kill()
        child.reap()
    if why is not None:
        terminal.note(f"{entry.path.name}: its tracking was not told that it is pruned: {why}")
