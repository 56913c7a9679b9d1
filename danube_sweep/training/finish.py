"""The end of a trial, or its pause: its product, its predictions and its result."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from danube_sweep.config.schema import Adapter, FullFinetune
from danube_sweep.config.schema.states import State
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.sharded import own_part
from danube_sweep.storage import checkpoint, predictions
from danube_sweep.storage.shared_files import share
from danube_sweep.training import resume, trained_weights
from danube_sweep.training.device import describe_device, peak_memory_bytes
from danube_sweep.training.prepare import Prepared
from danube_sweep.training.trial import ActiveTrial, Phase

Evaluate = Callable[[ActiveTrial, str], dict[str, float]]
_STATES = {Phase.pruned: State.pruned, Phase.paused: State.paused}


def finish(trial: ActiveTrial, prepared: Prepared, evaluate: Evaluate) -> dict[str, Any]:
    """Saves the best checkpoint as the run's product, its predictions beside it; returns the result's fields.

    `evaluate` gives the metrics of a trial on one of its parts.
    """
    best, model = resume.best_checkpoint(trial), trial.model
    manifest = checkpoint.read_manifest(best)
    trained_weights.load_trained(best, model)
    test = evaluate(trial, "test") if trial.config.trainer.score_test and "test" in trial.data else None
    folder = trial.where.folder

    def write_files(target: Any) -> None:
        trained_weights.save_trained(target, model, trained_weights.gathered_in(best, model))
        written = prepared.tokenizer.save_pretrained(target)
        if folder.trial.is_file():
            share([target / Path(one).name for one in written], folder.path.parent)

    sealed = {key: value for key, value in manifest.items() if key not in ("format", "files", "state")}
    checkpoint.write_checkpoint(folder.path / trained_weights.folder_name(trial.config.lora), sealed, write_files)
    if "validation" in prepared.parts:
        _write_predictions(trial, prepared, checkpoint.load_tensors(best / "predictions.safetensors"))
    return {
        "state": _STATES.get(trial.phase, State.finished).value,
        "steps": trial.done.step,
        "epochs": trial.plan.epoch_at(trial.done.step),
        "best_step": trial.best.best_step,
        "train_loss": trial.done.last_loss,
        "validation": manifest["metrics"] or {},
        "test": test,
        "references": prepared.references,
        "prior": prepared.prior,
        "rows": {name: len(part.ids) for name, part in prepared.parts.items()},
        "parameters": {
            "backbone": _backbone_parameters(trial.config.lora, model.backbone),
            "trainable": sum(parameter.numel() for parameter in model.parameters.values()),
        },
    }


def _backbone_parameters(adapter: Adapter, backbone: Backbone) -> int:
    # Its trained parameters are the adapter, except with lora=full.
    counted = (
        one for _, one in backbone.named_parameters() if isinstance(adapter, FullFinetune) or not one.requires_grad
    )
    return sum(map(_count, counted))


def _bytes_held(backbone: Backbone) -> int:
    # On this rank.
    return sum(own_part(one).nbytes for _, one in backbone.named_parameters())


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
        part.example_groups,
    )
    predictions.write(trial.where.folder.predictions, trial.config.head.target, prepared.classes, answered)


def measured(trial: ActiveTrial, seconds: dict[str, float]) -> dict[str, Any]:
    """The values that vary from run to run: memory, speed, seconds by phase, host.

    In a pack the memory is the pack's. Its seconds are divided among the trials that trained at the time.
    """
    backbone = trial.model.backbone
    device = backbone.device
    trained = max(trial.done.train_seconds, 1e-9)
    if trial.config.data.cache_prefix:
        seconds = {**seconds, "prefix": trial.done.prefix_seconds}
    return {
        "peak_memory_bytes": peak_memory_bytes(device),
        "packed": trial.most_companions,
        "devices": trial.ranks.count,
        **({"backbone_bytes": _bytes_held(backbone)} if backbone.sharded else {}),
        "tokens_per_s": trial.done.tokens / trained,
        "seconds_per_step": trained / max(trial.done.step, 1),
        "seconds": {**seconds, "train": trained, "validation": trial.done.validation_seconds},
        "host": platform.node(),
        "device": describe_device(device),
    }
