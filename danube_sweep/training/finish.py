"""The end of a trial: its product, its predictions and its result."""

import errno
import platform
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError

from danube_sweep.config.schema import Adapter, FullFinetune
from danube_sweep.config.schema.states import State
from danube_sweep.data.prepare import Prepared
from danube_sweep.errors import DanubeSweepError, Interrupted, TrialFailed, UserError
from danube_sweep.model.backbone import Backbone
from danube_sweep.storage import checkpoint, predictions
from danube_sweep.training import trained_weights
from danube_sweep.training.environment import describe, peak_memory_bytes
from danube_sweep.training.trial import ActiveTrial, Phase

Evaluate = Callable[[ActiveTrial, str], dict[str, float]]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def finish(trial: ActiveTrial, prepared: Prepared, evaluate: Evaluate) -> dict[str, Any]:
    """Saves the best checkpoint as the run's product, its predictions beside it; returns the result's fields.

    `evaluate` gives the metrics of a trial on one of its parts.
    """
    best, backbone = trial.best_checkpoint, trial.backbone
    manifest = checkpoint.read_manifest(best)
    trained_weights.load_trained(best, trial.config.lora, backbone, trial.head, trial.packed)
    test = evaluate(trial, "test") if trial.config.trainer.score_test and "test" in trial.data else None
    folder = trial.where.folder

    def write_files(target: Any) -> None:
        trained_weights.save_trained(
            target, trial.config.lora, backbone, trial.head, trial.config.model.path, trial.packed
        )
        prepared.tokenizer.save_pretrained(target)

    sealed = {key: value for key, value in manifest.items() if key not in ("format", "files", "state")}
    checkpoint.write_checkpoint(folder.path / trained_weights.folder_name(trial.config.lora), sealed, write_files)
    _write_predictions(trial, prepared, checkpoint.load_tensors(best / "predictions.safetensors"))
    return {
        "state": (State.pruned if trial.phase is Phase.pruned else State.finished).value,
        "steps": trial.done.step,
        "epochs": trial.plan.epoch_at(trial.done.step),
        "best_step": trial.done.best_step,
        "train_loss": trial.done.last_loss,
        "validation": manifest["metrics"],
        "test": test,
        "references": prepared.references,
        "rows": {name: len(part.ids) for name, part in prepared.parts.items()},
        "parameters": {
            "backbone": _backbone_parameters(trial.config.lora, backbone),
            "trainable": sum(parameter.numel() for parameter in trial.parameters.values()),
        },
    }


def _backbone_parameters(adapter: Adapter, backbone: Backbone) -> int:
    # What trains in it is the adapter, but for lora=full.
    counted = (
        one for _, one in backbone.named_parameters() if isinstance(adapter, FullFinetune) or not one.requires_grad
    )
    return sum(map(_count, counted))


def _count(parameter: torch.nn.Parameter) -> int:
    # 4-bit weights are stored two to a byte; their true shape is in the quantisation state.
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else torch.Size(state.shape).numel())


def _write_predictions(trial: ActiveTrial, prepared: Prepared, tensors: dict[str, torch.Tensor]) -> None:
    part, answers_NA = prepared.parts["validation"], tensors.get("answers")
    answered = predictions.Answered(
        part.examples,
        tensors["losses"].numpy(),
        part.truth.labels,
        part.truth.weights,
        None if answers_NA is None else answers_NA.numpy(),
    )
    predictions.write(trial.where.folder.predictions, trial.config.head.target, prepared.classes, answered)


def failure(error: BaseException) -> dict[str, Any]:
    """The result's fields of a trial that ended badly; none for what leaves no result: a stop or a user's mistake."""
    match error:
        case _ if _disk_is_full(error):
            state = State.disk_full.value
        case Interrupted() | UserError():
            return {}
        case TrialFailed():
            state = error.state
        case _:
            state = State.failed.value
    said = str(error) if isinstance(error, DanubeSweepError) else f"{type(error).__name__}: {error}"
    return {"state": state, "error": said}


def _disk_is_full(error: BaseException) -> bool:
    """Whether the error, or what caused it, is the operating system's word that nothing more can be written."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if isinstance(seen, SafetensorError) and any(f"(os error {number})" in str(seen) for number in FULL):
            return True
        seen = seen.__cause__
    return False


def measured(trial: ActiveTrial, seconds: dict[str, float]) -> dict[str, Any]:
    """What varies from run to run: memory, speed, seconds by phase, host.

    In a pack the memory is the pack's, and its seconds are divided among the trials that trained at the time.
    """
    backbone = trial.backbone
    trained = max(trial.done.train_seconds, 1e-9)
    return {
        "peak_memory_bytes": peak_memory_bytes(backbone.device),
        "packed": trial.most_companions,
        "tokens_per_s": trial.done.tokens / trained,
        "seconds_per_step": trained / max(trial.done.step, 1),
        "seconds": {**seconds, "train": trained, "validation": trial.done.validation_seconds},
        "host": platform.node(),
        "device": describe(backbone.device),
    }
