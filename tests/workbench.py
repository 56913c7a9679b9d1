"""Parts of a trial put together as training/run.py does it, for tests that look at the parts."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from danube_sweep.config.schema import Config, Init
from danube_sweep.data.batches import Batch, collate
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Head
from danube_sweep.model.backbone import Backbone, architecture
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tracking import open_tracker
from danube_sweep.training.assemble import AssembledModel, assemble, load_base
from danube_sweep.training.evaluate import Evaluation, eval_batches_of, evaluate_together
from danube_sweep.training.journal import Surroundings
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.prepare import Prepared, prepare
from danube_sweep.training.setup import PackBuilder, Stopwatch
from danube_sweep.training.step_plan import StepPlan
from danube_sweep.training.trial import ActiveTrial

CPU = torch.device("cpu")

CAUSAL = ["head=causal", "head.words=[A,B,tie]"]
"""Overrides for a causal head over generated data."""


def load(config: Config) -> Backbone:
    """The trial's backbone, with an output layer if its head reads one."""
    return load_base(config, CPU)


def save_base(config: Config, folder: Path) -> PreTrainedModel:
    """A whole causal LM of the trial's shape with random weights, also saved in `folder` with the trial's tokenizer."""
    torch.manual_seed(config.model.init_seed)
    drawn = AutoModelForCausalLM.from_config(architecture(replace(config.model, init=Init.random)), dtype=torch.float32)
    drawn.save_pretrained(folder)
    prepare(config).tokenizer.save_pretrained(folder)
    return drawn.eval()


@dataclass
class Parts:
    """A trial's data and model."""

    prepared: Prepared
    model: AssembledModel

    @property
    def config(self) -> Config:
        return self.model.config

    @property
    def backbone(self) -> Backbone:
        return self.model.backbone

    @property
    def head(self) -> Head:
        return self.model.head

    @property
    def adapter(self) -> dict[str, nn.Parameter]:
        return self.model.adapter

    def batch(self, rows: list[int], part: str = "train") -> Batch:
        return collate(self.prepared.parts[part], np.array(rows), self.prepared.pad_id)

    def loss(self, batch: Batch) -> torch.Tensor:
        hidden_BTH = self.backbone.hidden(batch.input_ids_BT, batch.mask_BT)
        return self.head.loss(self.head(hidden_BTH, batch), batch)


def build(config: Config, prepared: Prepared | None = None) -> Parts:
    """Data (or those given), backbone, adapter and head of a trial, the adapter in PEFT's own layers."""
    prepared = prepared or prepare(config)
    given = {"classes": prepared.classes, "tokenizer": prepared.tokenizer}
    return Parts(prepared, assemble(config, load(config), adapters=None, **given))


def activate(parts: Parts, folder: Path) -> ActiveTrial:
    """The trial, ready for a pack, writing into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tracker = open_tracker(
        parts.config.tracking, run_id="0" * 32, run_name=folder.name, folder=folder, resolved={}, say=print
    )
    terminal = Terminal(Console(file=io.StringIO()), plain=True)
    manifest = {"trial": folder.name, "pad_id": parts.prepared.pad_id}
    where = Surroundings(RunFolder(folder), tracker, terminal, folder.name, manifest)
    plan = StepPlan(parts.config, parts.prepared.parts["train"], parts.prepared.pad_id)
    return ActiveTrial(parts.model, parts.prepared.parts, plan, where)


@dataclass
class Staying:
    """Decides about a pack's trials: nobody comes in, and they leave early when `stopping` says so."""

    stopping: Callable[[], bool] = lambda: False

    def leaves(self, _trial: ActiveTrial) -> bool:
        return self.stopping()

    def left(self, _trial: ActiveTrial) -> list[ActiveTrial]:
        return []


def packed(configs: list[Config], folder: Path) -> tuple[TrainingPack, list[ActiveTrial]]:
    """A pack and its trials, made as training/run.py makes them, each with a folder of its own under `folder`."""
    builder = PackBuilder()
    built = [Parts(*builder.build(config, Stopwatch())) for config in configs]
    return builder.pack, [activate(parts, folder / str(number)) for number, parts in enumerate(built)]


def train_pack(configs: list[Config], folder: Path, stopping: Callable[[], bool] = lambda: False) -> list[ActiveTrial]:
    """Trains the trials together over one backbone, each in a folder of its own under `folder`."""
    pack, trials = packed(configs, folder)
    fit(PackModule(pack, trials, Staying(stopping)), accelerator="cpu")
    return trials


def fit_parts(parts: Parts, folder: Path, stopping: Callable[[], bool] = lambda: False) -> ActiveTrial:
    """Trains one trial whose parts are there."""
    trial = activate(parts, folder)
    fit(PackModule(TrainingPack(parts.backbone), [trial], Staying(stopping)), accelerator="cpu")
    return trial


def train(config: Config, folder: Path) -> ActiveTrial:
    """Trains one trial alone."""
    (trial,) = train_pack([config], folder)
    if trial.error is not None:
        raise trial.error
    return trial


def evaluate(backbone: Backbone, head: Head, rows: Encoded, *, batch_rows: int, pad_id: int) -> Evaluation:
    """Losses, answers and metrics of every example, so many rows at a time."""
    (found,) = evaluate_together(
        backbone,
        [head],
        rows,
        hidden=lambda batch: [backbone.hidden(batch.input_ids_BT, batch.mask_BT)],
        batches=eval_batches_of(rows, batch_rows, pad_id, backbone),
    )
    return found


def losses(trial: ActiveTrial, part: str = "train") -> list[float]:
    """The loss of every step, or of every validation, as it stands in metrics.csv."""
    column = "loss" if part == "train" else "log_loss"
    with trial.where.folder.metrics.open(newline="") as stream:
        return [float(row[column]) for row in csv.DictReader(stream) if row["part"] == part]


def rows_of(tokens: list[list[int]], classes: int = 3, weights: list[float] | None = None) -> Encoded:
    """Encoded rows of the tokens given, row i labelled i mod classes, its texts the first and the second half."""
    spans = [[[0, len(row) // 2], [len(row) // 2, len(row)]] for row in tokens]
    labels = np.eye(classes, dtype=np.float32)[np.arange(len(tokens)) % classes]
    return Encoded(
        [str(number) for number in range(len(tokens))],
        [np.array(row, dtype=np.int32) for row in tokens],
        np.array(spans, dtype=np.int32),
        labels,
        np.array(weights or [1.0] * len(tokens), dtype=np.float32),
        np.diff(np.array(spans, dtype=np.int32), axis=2)[..., 0],
    )
