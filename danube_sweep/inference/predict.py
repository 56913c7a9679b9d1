"""Predictions of a finished run, from its folder alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep.config import first_version
from danube_sweep.config.facts.architectures import first_adapted
from danube_sweep.config.identity import is_random
from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.config.schema import (
    Comparison,
    Compute,
    Config,
    Device,
    FullFinetune,
    Init,
    Model,
    Precision,
    RowLayout,
    Storage,
)
from danube_sweep.config.stored import load_config, sealed
from danube_sweep.data.batches import Batch
from danube_sweep.data.chat_markup import markup_for
from danube_sweep.data.layout import Layout, layout_for
from danube_sweep.data.records import Record
from danube_sweep.data.tokenizer import load_tokenizer
from danube_sweep.errors import CheckpointError, ConfigError, ModelError
from danube_sweep.head.base_head import Head
from danube_sweep.inference.joint_answers import joint_predictions
from danube_sweep.inference.predict_input import Input, check_input
from danube_sweep.inference.prediction_table import (
    Form,
    Predictions,
    Table,
    csv_line,
    in_sample_order,
    notes_on_names,
    table_of,
)
from danube_sweep.inference.sample_submission import Arrangement, read_sample
from danube_sweep.lora import PackedAdapter, PackedAdapters
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.hub_download import local_folder
from danube_sweep.storage import checkpoint
from danube_sweep.storage.files import whole_file
from danube_sweep.storage.outputs import check_place
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training import trained_weights
from danube_sweep.training.assemble import assemble, load_base
from danube_sweep.training.device import native_types, pick_device
from danube_sweep.training.pack.kept_rows import KeptRows
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.resume import ARITHMETIC

WAY_OUT = "choose another place by -o"
CHUNK_ROWS = 2048
"""Rows that are read, sorted by length and predicted at a time."""


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a finished run, verified; nothing is loaded."""

    path: Path
    config: Config
    weights: Path
    """The folder of the trained weights."""
    manifest: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        return list(self.manifest["classes"])

    @property
    def full(self) -> bool:
        """Whether the whole model was trained, and is here."""
        return isinstance(self.config.lora, FullFinetune)


@dataclass(frozen=True)
class Trained:
    """A finished run, ready to predict."""

    config: Config
    backbone: Backbone
    head: Head
    tokenizer: PreTrainedTokenizerBase
    classes: list[str]
    layout: Layout
    prefix: SharedPrefix | None = None
    """The blocks below the first adapted one, if the run kept their output (data.cache_prefix)."""

    @property
    def from_block(self) -> int:
        """The first adapted block, or their number, of a run that kept states."""
        assert self.prefix is not None
        return first_adapted(self.config.lora, self.prefix.blocks)

    def kept_rows(self) -> KeptRows | None:
        """The states that the run kept, if it did."""
        return None if self.prefix is None else KeptRows(self.backbone, self.from_block)

    def states(self, batch: Batch, stored_BTH: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Its final hidden states [B, T, H] of a batch, by `stored_BTH` where those before `from_block` are kept."""
        if stored_BTH is None or self.prefix is None:
            return [self.backbone.hidden(batch.input_ids_BT, batch.mask_BT)]
        ids_BT, mask_BT = batch.input_ids_BT, batch.mask_BT
        return [self.prefix.hidden(ids_BT, mask_BT, [0], from_block=self.from_block, stored_UTH=stored_BTH)]


@dataclass(frozen=True)
class Place:
    """The device and files for loading a run. None stands for the run's own."""

    device: Device
    compute: Compute | None = None
    """Its compute type, on a device that lacks the run's own."""
    model_path: Path | None = None
    """The folder of its backbone, if that has moved."""


def open_run(path: Path) -> FinishedRun:
    """Opens a finished run, verified file by file. Raises CheckpointError if it is unfinished, damaged or edited."""
    folder = RunFolder(path)
    config = load_config(folder.config)
    weights = path / trained_weights.folder_name(config.lora)
    if not weights.is_dir():
        raise CheckpointError(f"{path} is not finished; finish it with: danube-sweep resume {path}")
    manifest = checkpoint.read_manifest(weights)
    now, then = sealed(config), manifest["config"]
    edited = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    if edited:
        raise CheckpointError(f"{folder.config}: {edited[0]} was changed since the run; put back what it was")
    return FinishedRun(path, config, weights, manifest)


def load_run(path: Path, device: Device, compute: Compute | None = None, *, by_peft: bool = False) -> Trained:
    """`load` of the run in a folder. Raises the errors of `open_run` and `load`."""
    return load(open_run(path), Place(device, compute), by_peft=by_peft)


def load(run: FinishedRun, place: Place, *, by_peft: bool = False, spare: bool = False) -> Trained:
    """Loads a finished run. It answers as it was validated, to the last bit. `by_peft`: over PEFT's own layers.

    `spare`: with an output layer that its head does not read, for a benchmark.

    Raises CheckpointError if it was trained over another backbone, and ModelError if its backbone cannot be loaded.
    Raises ConfigError if the device lacks its compute type, or for a model_path if it has no backbone that could move.
    """
    config, backbone = load_backbone_of(run, place, spare=spare)
    adapters = None if by_peft else PackedAdapters(backbone)
    trained, packed = put_over(run, config, backbone, adapters)
    if adapters is not None and packed is not None:
        adapters.put_alone(packed)
    return replace(trained, prefix=SharedPrefix(backbone)) if config.data.cache_prefix else trained


def load_backbone_of(run: FinishedRun, place: Place, *, spare: bool = False) -> tuple[Config, Backbone]:
    """The verified backbone that a run was trained over, and its config there; `spare` and errors as in `load`."""
    config, manifest = moved(run, place.model_path), run.manifest
    target = pick_device(place.device)
    if place.compute is not None:
        config = replace(config, precision=_computing_in(config.precision, place.compute))
    types = native_types(target)
    if config.precision.compute.value not in types:
        raise ConfigError(
            f"{run.path} computes in {config.precision.compute.value}, which {place.device.name} does not support; "
            f"give --compute {types[-1]}"
        )
    config = _laid_as_trained(config, manifest)
    product = replace(config.model, path=str(run.weights), init=Init.pretrained)
    try:
        backbone = load_base(config, target, weights=product if run.full else None, spare=spare)
    except ModelError as error:
        if run.full or place.model_path is not None:
            raise
        raise ModelError(f"{error}; or, if it has moved, give --model-path FOLDER") from error
    if not run.full:
        check_backbone(run, config, backbone)
    backbone.capped = manifest.get(ARITHMETIC, 1) > 1
    return config, backbone


def check_backbone(run: FinishedRun, config: Config, backbone: Backbone) -> None:
    """Raises CheckpointError for a backbone that is not the one that the run's training began with."""
    if _fingerprint(config.model, backbone, run.manifest) != run.manifest["backbone"]:
        raise CheckpointError(
            f"{run.path} was trained over another backbone than model.path={config.model.path} is now; "
            "give back the one it was trained over, by --model-path if it has moved"
        )


def put_over(
    run: FinishedRun, config: Config, backbone: Backbone, adapters: PackedAdapters | None
) -> tuple[Trained, PackedAdapter | None]:
    """A finished run over its backbone, and its adapter if that is drawn from `adapters`, not arranged yet."""
    product = replace(config.model, path=str(run.weights), init=Init.pretrained)
    tokenizer, classes = load_tokenizer(product), run.classes
    model = assemble(config, backbone, classes=classes, tokenizer=tokenizer, adapters=adapters)
    trained_weights.load_trained(run.weights, model)
    layout = layout_for(config.model, config.data, config.head, markup_for(config.model, tokenizer, trained=True))
    return Trained(config, backbone, model.head, tokenizer, classes, layout), model.packed


def moved(run: FinishedRun, model_path: Path | None) -> Config:
    """The run's config over a backbone that has moved. Raises ConfigError for a run without one that could move."""
    if model_path is None:
        return run.config
    if run.full:
        raise ConfigError(f"--model-path {model_path}: {run.path} has its whole model with it; leave it out")
    if is_random(run.config.model):
        raise ConfigError(f"--model-path {model_path}: {run.path} has a backbone with random weights; leave it out")
    moved = replace(run.config.model, path=str(model_path.expanduser().absolute()), revision=None, commit=None)
    return replace(run.config, model=moved)


def _fingerprint(model: Model, backbone: Backbone, manifest: Mapping[str, Any]) -> str:
    """The backbone's fingerprint by the rules of the run: version 1 took a sample of the weights."""
    if manifest.get(ARITHMETIC, 1) > 1 or is_random(model):
        return backbone.fingerprint
    return first_version.weights_fingerprint(local_folder(model))


def _laid_as_trained(config: Config, manifest: Mapping[str, Any]) -> Config:
    # Version 0.1 stated no layout: it was the config's.
    if "flat" not in manifest:
        return config
    layout = RowLayout.flat if manifest["flat"] else RowLayout.padded
    return replace(config, data=replace(config.data, layout=layout))


def _computing_in(precision: Precision, compute: Compute) -> Precision:
    sixteen_bit = precision.storage in (Storage.bf16, Storage.fp16)
    return replace(precision, compute=compute, storage=Storage(compute.value) if sixteen_bit else precision.storage)


@dataclass(frozen=True)
class Request:
    """A file to predict and the table to write from it, all of it checked."""

    input: Input
    target: Path
    swap: bool
    table: Table
    arrangement: Arrangement | None
    notes: list[str]

    @property
    def header(self) -> list[str]:
        return self.table.header if self.arrangement is None else self.arrangement.header


def checked_request(run: "FinishedRun | Trained", source: Path, target: Path, form: Form) -> Request:
    """Reads the whole input and settles the output. Nothing is loaded and nothing is written yet.

    Raises DataError for a bad file. Raises ConfigError if there is nothing to predict or to swap, and for columns that
    do not match. Raises DiskError for a `target` that cannot be written or is an input.
    """
    data = run.config.data
    if form.swap and not isinstance(data, Comparison):
        raise ConfigError("--swap needs two answers in every row, and this run reads single texts; leave it out")
    own = _own_files(run) if isinstance(run, FinishedRun) else []
    read = [source, *([] if form.like is None else [form.like]), *own]
    check_place(target, "-o", read, draws="submission.csv")  # of a night, whose commands.sh may be run again
    table_of(run.config, run.classes, form=form, id_column=None)  # refuses before the file is read
    sample = None if form.like is None else read_sample(form.like)
    given = check_input(data, source, form.id_column, [] if sample is None else sample.columns)
    table, notes = table_of(run.config, run.classes, form=form, id_column=given.id_column)
    arrangement = None if sample is None else sample.arranged(table, given)
    notes = [] if arrangement else [*notes, *notes_on_names(table.header)]
    symmetric = form.swap and run.config.head.symmetric
    notes += ["--swap is skipped: this head answers both orders alike"] if symmetric else []
    return Request(given, target, form.swap and not symmetric, table, arrangement, [*given.notes, *notes])


def predict_file(
    trained: Trained,
    source: Path,
    target: Path,
    *,
    form: Form | None = None,
    batch_rows: int = 16,
    done: Callable[[int], None] = lambda _rows: None,
) -> int:
    """Writes a run's answers to every row of a file, which it reads and predicts in chunks; returns their number.

    `done` is called with the rows of every forward pass. Raises what `checked_request` raises, DataError for a file
    that has changed since, DiskError.
    """
    request = checked_request(trained, source, target, form or Form())
    return write_answers(request, predicted(trained, request, batch_rows, done))


def write_answers(request: Request, answered: Iterable[Predictions]) -> int:
    """Writes ids and answers to successive rows, in the order of the file or of the sample; returns the rows' number.

    The target appears whole or not at all. Raises DiskError.
    """
    rows = _rows(request, answered)
    if (wanted := request.arrangement) is not None:
        rows = in_sample_order(rows, wanted.ids, wanted.places)
    written = 0
    with (
        whole_file(request.target, WAY_OUT) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        stream.write(csv_line(request.header if wanted else list(map(neutral_cell, request.header))))
        for row in rows:
            stream.write(csv_line(row if wanted else _spelled(row, request.table)))
            written += 1
    return written


def _spelled(row: list[str], table: Table) -> list[str]:
    # A single answer may be a class; of a sample the own spelling is kept, since its judge expects it.
    return [*row[:-1], neutral_cell(row[-1])] if len(table.answers) == 1 else row


def predicted(
    trained: Trained, request: Request, batch_rows: int, done: Callable[[int], None], skip: int = 0
) -> Iterator[Predictions]:
    """The answers to each chunk of the file, without the first ones. Raises DataError for a file that has changed."""
    kept = trained.kept_rows()
    for records in chunks(request.input.records(), skip):
        yield predictions(trained, records, swap=request.swap, batch_rows=batch_rows, kept=kept, done=done)


def _rows(request: Request, answered: Iterable[Predictions]) -> Iterator[list[str]]:
    written = 0
    for found in answered:
        for row in request.table.rows(found, written):
            yield row
            written += 1


def _own_files(run: FinishedRun) -> list[Path]:
    folder = RunFolder(run.path)
    kept = [folder.config, folder.environment, folder.metrics, folder.log, folder.predictions, folder.result]
    return [*kept, folder.trial, folder.attempts, folder.adjusted, *run.weights.iterdir()]


def predictions(
    trained: Trained,
    records: list[Record],
    *,
    swap: bool,
    batch_rows: int,
    kept: KeptRows | None = None,
    done: Callable[[int], None] = lambda _rows: None,
) -> Predictions:
    """The answers to some records. Rows in `kept` skip the prefix. Raises ConfigError for `swap` of single texts."""
    (found,) = joint_predictions(
        [trained], trained.states, records, swap=swap, batch_rows=batch_rows, kept=kept, done=done
    )
    return found


def chunks(records: Iterator[Record], skip: int = 0) -> Iterator[list[Record]]:
    """The records, so many at a time as are sorted by length together, without the first chunks."""
    return islice(iter(lambda: list(islice(records, CHUNK_ROWS)), []), skip, None)
