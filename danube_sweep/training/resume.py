"""Checkpoints of a trial while it trains: saving one, going on from the last one, finding the best one."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from danube_sweep.errors import CheckpointError, DamagedCheckpoint
from danube_sweep.lora.adalora_ranks import RankAllocation
from danube_sweep.storage import checkpoint
from danube_sweep.storage.checkpoints_by_step import MANIFEST, Checkpoints
from danube_sweep.storage.leases import fence
from danube_sweep.training import trained_weights
from danube_sweep.training.assemble import AssembledModel
from danube_sweep.training.best_and_patience import BestSoFar
from danube_sweep.training.evaluate import Evaluation
from danube_sweep.training.journal import Surroundings
from danube_sweep.training.shards import Gathered, Shards

ARITHMETIC = "arithmetic"
"""The manifest's key for the version of the arithmetic behind a checkpoint; without it that is 1."""
_MAY_DIFFER = ("versions", "hub", "flat")
"""The manifest's keys that tell of the process that wrote it."""


@dataclass
class Progressed:
    """The state of a resumed trial besides weights, optimizer and best step. The names are those in the file."""

    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    last_loss: float = math.nan
    overflows: int = 0
    """Steps in a row that fp16 has skipped."""
    prefix_seconds: float = 0.0
    """Its part of the time that kept states took (data.cache_prefix)."""


class Resumable(Protocol):
    """All of a trial that goes into a checkpoint and comes back."""

    model: AssembledModel
    where: Surroundings
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    allocation: RankAllocation | None
    shards: Shards
    done: Progressed
    best: BestSoFar


def save(trial: Resumable, evaluation: Evaluation | None, gathered: Gathered | None = None) -> None:
    """Writes a checkpoint of the trial where it stands; keeps it and the best one, and removes the others.

    Where it is the best one itself, the best before it stays: there are two in case one is damaged. `evaluation` is
    that of this step, if it was validated, and `gathered` what ranks divide. Raises DiskError, and BusyError if another
    process has taken over the trial.
    """
    state: dict[str, Any] = {
        "optimizer": trial.optimizer.state_dict() if gathered is None else gathered.optimizer,
        "schedule": trial.schedule.state_dict(),
        "scaler": trial.scaler.state_dict(),
        "done": {**asdict(trial.done), **asdict(trial.best)},
        "allocation": None if trial.allocation is None else trial.allocation.state_dict(),
    }
    skeleton, tensors = checkpoint.pack_state(state)
    metrics = None if evaluation is None else evaluation.metrics

    def write_files(folder: Path) -> None:
        trained_weights.save_trained(folder, trial.model, None if gathered is None else gathered.weights)
        checkpoint.save_tensors(tensors, folder / "training.safetensors")
        if evaluation is not None:
            checkpoint.save_tensors(evaluation.tensors(), folder / "predictions.safetensors")

    step, kept = trial.done.step, checkpoints_of(trial)
    manifest = {**trial.where.manifest, "step": step, "metrics": metrics, "state": skeleton}
    run = trial.where.folder.path  # a lease is there, wherever the checkpoints are
    checkpoint.write_checkpoint(kept.folder(step), manifest, write_files, run)
    spare = trial.best.best_before if trial.best.best_step == step else None
    if trial.best.best_step is None:  # no rows validate, or none have yet
        spare = max((one for one in kept.steps() if one < step), default=None)
    fence(run)
    kept.keep({step, trial.best.best_step, spare})


def go_on(trial: Resumable) -> bool:
    """Puts the trial where its newest checkpoint left it that verifies; returns whether it was validated there.

    Without a checkpoint the trial is left at its start.
    Damage is noted with the steps that it costs. A checkpoint of an older arithmetic is set aside, with a note, and the
    trial left at its start. Raises CheckpointError for a checkpoint of another trial or format.
    """
    found = _newest_whole(trial)
    if found is None:
        return False
    folder, manifest = found
    if manifest.get(ARITHMETIC, 1) != trial.where.manifest.get(ARITHMETIC, 1):
        _set_aside(trial, folder, manifest.get(ARITHMETIC, 1))
        return False
    for key, value in trial.where.manifest.items():
        if key not in _MAY_DIFFER and manifest.get(key) != value:
            raise CheckpointError(f"{folder} was written with another {key}; give another hydra.run.dir")
    return _restore(trial, folder, manifest)


def restore(trial: Resumable, step: int) -> None:
    """Puts the trial where its checkpoint of that step left it, which verifies; at step 0 it stays where it is."""
    if step:
        folder = checkpoints_of(trial).folder(step)
        _restore(trial, folder, checkpoint.read_manifest(folder))


def _restore(trial: Resumable, folder: Path, manifest: dict[str, Any]) -> bool:
    trained_weights.load_trained(folder, trial.model)
    with of_a_trial(folder):
        state = checkpoint.unpack_state(manifest["state"], checkpoint.load_tensors(folder / "training.safetensors"))
        trial.optimizer.load_state_dict(trial.shards.divided(state["optimizer"], trial.optimizer))
        trial.schedule.load_state_dict(state["schedule"])
        if trial.scaler.is_enabled():
            trial.scaler.load_state_dict(state["scaler"])
        if trial.allocation is not None:
            trial.allocation.load_state_dict(state["allocation"])
        done: dict[str, Any] = state["done"]
        known = {"prefix_seconds": 0.0, **done}  # checkpoints of an older version lack it
        trial.done = Progressed(**{one.name: known[one.name] for one in fields(Progressed)})
        trial.best = BestSoFar(**{one.name: done[one.name] for one in fields(BestSoFar) if one.name in done})
        return manifest["metrics"] is not None


@contextmanager
def of_a_trial(folder: Path) -> Iterator[None]:
    """Raises DamagedCheckpoint if the block does not find a value in the checkpoint in `folder`.

    The manifests of version 0.1 have no hash of their own, so a changed one may lack anything.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{folder / MANIFEST} is damaged ({error!r}); use an earlier checkpoint or train again"
        ) from error


def _newest_whole(trial: Resumable) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that verifies together with its best one, without which the trial could not end.

    A note is printed if that is not the newest of all.
    """
    kept, said = checkpoints_of(trial), ""
    steps = kept.steps()
    for step in reversed(steps):
        try:
            manifest = checkpoint.read_manifest(kept.folder(step))
            with of_a_trial(kept.folder(step)):
                best = _best_step(manifest)
            if best not in (None, step):
                checkpoint.read_manifest(kept.folder(best))
        except DamagedCheckpoint as error:
            said = said or str(error).partition(";")[0]
            continue
        if said:
            again = steps[-1] - step
            trial.where.terminal.note(f"{said}; goes on from step {step}, so that {again} steps are trained again")
        return kept.folder(step), manifest
    if said:
        again = steps[-1]
        trial.where.terminal.note(f"{said}; no other is whole, so that the trial starts again: {again} steps are lost")
    return None


def _best_step(manifest: Mapping[str, Any]) -> int | None:
    done: dict[str, Any] = checkpoint.unpack_state(dict(manifest["state"]["dict"])["done"], {})
    best: int | None = done["best_step"]
    return best


def _set_aside(trial: Resumable, folder: Path, version: int) -> None:
    aside = checkpoints_of(trial).set_aside(f"of-version-{version}")
    trial.where.terminal.note(
        f"{folder} follows version {version} of the training arithmetic and is not continued: the trial starts again; "
        f"its checkpoints are kept in {aside}"
    )


def best_checkpoint(trial: Resumable) -> Path:
    """The folder of the checkpoint with the best validation; where no rows validate, that of the last step."""
    best = trial.best.best_step
    return checkpoints_of(trial).folder(trial.done.step if best is None else best)


def checkpoints_of(trial: Resumable) -> Checkpoints:
    """The trial's checkpoints, by step."""
    return Checkpoints(trial.where.folder.checkpoints)
