"""Predictions of a finished run, from its folder alone."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep.config.schema import (
    Comparison,
    Compute,
    Config,
    Device,
    FullFinetune,
    Init,
    Precision,
    Storage,
    Target,
)
from danube_sweep.config.stored import load_config, sealed
from danube_sweep.data.chat_markup import markup_for
from danube_sweep.data.encode import encode
from danube_sweep.data.layout import Layout, layout_for
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.data.records import OUTSIDE, Record, swapped
from danube_sweep.data.tokenizer import load_tokenizer
from danube_sweep.data.vocabulary import check_ids
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.head.base_head import Head
from danube_sweep.lora import PackedAdapters
from danube_sweep.model.backbone import Backbone
from danube_sweep.storage import checkpoint
from danube_sweep.storage.files import whole_file
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training import trained_weights
from danube_sweep.training.assemble import assemble, load_base
from danube_sweep.training.device import native_types, pick_device
from danube_sweep.training.evaluate import forward
from danube_sweep.training.metrics import decided
from danube_sweep.training.resume import ARITHMETIC

CHUNK_ROWS = 2048
"""Rows that are read, sorted by length and predicted at a time."""


@dataclass(frozen=True)
class Trained:
    """A finished run, ready to predict."""

    config: Config
    backbone: Backbone
    head: Head
    tokenizer: PreTrainedTokenizerBase
    classes: list[str]
    layout: Layout


def load_run(path: Path, device: Device, compute: Compute | None = None, *, by_peft: bool = False) -> Trained:
    """Loads a finished run, verified file by file; `compute` replaces its compute type on a device that lacks it.

    It answers as it was validated, to the last bit; `by_peft` over PEFT's own layers, as others load its adapter.

    Raises CheckpointError if it is unfinished, damaged or was trained over another backbone, ModelError if its
    backbone cannot be had, ConfigError if the device lacks its compute type.
    """
    folder = RunFolder(path)
    config = load_config(folder.config)
    trained = path / trained_weights.folder_name(config.lora)
    if not trained.is_dir():
        raise CheckpointError(f"{path} is not finished; finish it with: danube-sweep resume {path}")
    manifest = checkpoint.read_manifest(trained)
    now, then = sealed(config), manifest["config"]
    edited = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    if edited:
        raise CheckpointError(f"{folder.config}: {edited[0]} was changed since the run; put back what it was")
    target = pick_device(device)
    if compute is not None:
        config = replace(config, precision=_computing_in(config.precision, compute))
    types = native_types(target)
    if config.precision.compute.value not in types:
        raise ConfigError(
            f"{path} computes in {config.precision.compute.value}, which {device.name} has not; "
            f"give --compute {types[-1]}"
        )
    full = isinstance(config.lora, FullFinetune)
    product = replace(config.model, path=str(trained), init=Init.pretrained)
    backbone = load_base(config, target, weights=product if full else None)
    if not full and backbone.fingerprint != manifest["backbone"]:
        raise CheckpointError(
            f"{path} was trained over another backbone than model.path={config.model.path} is now; "
            "give back the one it was trained over"
        )
    backbone.capped = manifest.get(ARITHMETIC, 1) > 1
    tokenizer, classes = load_tokenizer(product), manifest["classes"]
    adapters = None if by_peft else PackedAdapters(backbone)
    model = assemble(config, backbone, classes=classes, tokenizer=tokenizer, adapters=adapters)
    if adapters is not None and model.packed is not None:
        adapters.put_alone(model.packed)
    trained_weights.load_trained(trained, model)
    layout = layout_for(config.model, config.data, config.head, markup_for(config.model, tokenizer, trained=True))
    return Trained(config, backbone, model.head, tokenizer, classes, layout)


def _computing_in(precision: Precision, compute: Compute) -> Precision:
    sixteen_bit = precision.storage in (Storage.bf16, Storage.fp16)
    return replace(precision, compute=compute, storage=Storage(compute.value) if sixteen_bit else precision.storage)


def predict_file(
    trained: Trained,
    source: Path,
    target: Path,
    *,
    form: "Form | None" = None,
    batch_rows: int = 16,
    done: Callable[[int], None] = lambda _rows: None,
) -> int:
    """Writes `id` and the answer for every row of `source`, in its order; returns the number of rows written.

    `done` is told the rows of every forward pass. Reads and writes in chunks; `target` appears whole or not at all.
    Raises DataError for a bad file and ConfigError where there is nothing to predict or to swap.
    """
    form = form or Form()
    write = _writer(trained, form.labels)
    rows = 0
    with (
        whole_file(target, "choose another place by -o") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(write.header)
        for records in _chunks(read_unlabelled(trained.config.data, source)):
            found = predictions(trained, records, swap=form.swap, batch_rows=batch_rows, done=done)
            for row in write.rows(found, rows):
                writer.writerow(row)
                rows += 1
    return rows


@dataclass(frozen=True)
class Form:
    """What is written: a probability per class, or a number; words have a row each."""

    swap: bool = False
    """Both orders of the answers are averaged."""
    labels: bool = False
    """The likeliest class instead, of ordered ones the median; of words those that are no O: the PII competition's."""


@dataclass(frozen=True)
class Predictions:
    """Answers to n examples: rows, or words as `<text>:<word>`."""

    examples: list[str]
    answers_NA: torch.Tensor
    """float64: probabilities of the classes, or a number."""


def predictions(
    trained: Trained,
    records: list[Record],
    *,
    swap: bool,
    batch_rows: int,
    done: Callable[[int], None] = lambda _rows: None,
) -> Predictions:
    """The answers to some records. Raises ConfigError where there is nothing to swap."""
    straight = _one_order(trained, records, batch_rows, done)
    if not swap:
        return straight
    if any(len(record.texts) != 3 for record in records) or not isinstance(trained.config.data, Comparison):
        raise ConfigError("--swap needs two answers in every row, and this run reads single texts; leave it out")
    turned = _one_order(trained, [swapped(record) for record in records], batch_rows, done)
    order = [1, 0, *range(2, len(trained.classes))]
    return replace(straight, answers_NA=(straight.answers_NA + turned.answers_NA[:, order]) / 2)


def _one_order(trained: Trained, records: list[Record], batch_rows: int, done: Callable[[int], None]) -> Predictions:
    rows = encode(records, trained.tokenizer, trained.config.data, trained.layout, num_classes=len(trained.classes))
    check_ids(rows, trained.backbone.body.get_input_embeddings().num_embeddings, str(trained.config.model.path))
    pad_id = int(trained.tokenizer.pad_token_id)
    places: list[torch.Tensor] = []
    answers: list[torch.Tensor] = []
    for batch, output in forward(trained.backbone, trained.head, rows, batch_rows=batch_rows, pad_id=pad_id):
        found = trained.head.answers(output)
        assert found is not None
        places.append(torch.from_numpy(rows.places(batch.rows)))
        answers.append(found.double().cpu())
        done(len(batch.rows))
    return Predictions(rows.examples, torch.cat(answers)[torch.cat(places).argsort()])


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK_ROWS)):
        yield chunk


@dataclass(frozen=True)
class _Writer:
    header: list[str]
    rows: Callable[[Predictions, int], Iterator[list[object]]]
    """The rows of a chunk, before which so many were written."""


def _writer(trained: Trained, labels: bool) -> _Writer:
    classes, target = trained.classes, trained.config.head.target
    if target is Target.nothing:
        raise ConfigError("head=lm predicts no classes; predict needs a run with another head")
    if labels and target in (Target.many, Target.number):
        raise ConfigError(f"--labels names one class a row, and {_KIND[target]}; leave it out")

    def plain(found: Predictions, _before: int) -> Iterator[list[object]]:
        for name, values in zip(found.examples, found.answers_NA.tolist(), strict=True):
            yield [*_split(name, target), *(f"{value:.9f}" for value in values)]

    def likeliest(found: Predictions, _before: int) -> Iterator[list[object]]:
        for name, place in zip(found.examples, decided(target, found.answers_NA).tolist(), strict=True):
            yield [name, classes[place]]

    def entities(found: Predictions, before: int) -> Iterator[list[object]]:
        for name, place in zip(found.examples, decided(target, found.answers_NA).tolist(), strict=True):
            if classes[place] != OUTSIDE:
                yield [before, *_split(name, target), classes[place]]
                before += 1

    if not labels:
        return _Writer([*_id_columns(target), *classes], plain)
    if target is Target.words:
        return _Writer(["row_id", *_id_columns(target), "label"], entities)
    data = trained.config.data
    return _Writer(["id", data.label_name], likeliest)


_KIND = {Target.many: "this run finds any number of them", Target.number: "this run predicts a number"}


def _id_columns(target: Target) -> list[str]:
    return ["document", "token"] if target is Target.words else ["id"]


def _split(name: str, target: Target) -> list[str]:
    text, _, word = name.rpartition(":")
    return [text, word] if target is Target.words else [name]
