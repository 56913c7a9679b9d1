"""A finished run in, a folder for other tools out, whole or not at all."""

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Compute, FullFinetune, NoAdapter
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.inference.export.check_export import Checked, Reference, check_export, reference, tolerance
from danube_sweep.inference.export.export_weights import (
    exported_config,
    peft_type,
    write_adapter,
    write_head,
    write_whole,
)
from danube_sweep.inference.export.how_to_read import HiddenStates, Reading, reading_of
from danube_sweep.inference.export.loading_code import Base, Weights, Whole, loading_code
from danube_sweep.inference.export.model_card import Card, card_of, write_card
from danube_sweep.inference.predict import Place, Trained, load, open_run
from danube_sweep.model.precision import DTYPES
from danube_sweep.storage.files import remove_left_over, whole_folder
from danube_sweep.training import trained_weights


@dataclass(frozen=True)
class Options:
    """`merge`: a whole model instead of an adapter, in the type `dtype`; `name` goes onto the card."""

    name: str
    merge: bool = False
    dtype: Compute | None = None
    for_others: bool = False
    """Whether it leaves this machine, where a base in a local folder is of no use."""


@dataclass(frozen=True)
class Written:
    """The data for the check and the card. The run itself is out of memory again at that point."""

    reading: Reading
    code: str
    expected: Reference
    tolerance: float
    device: str
    card: Card


def export_run(run: Path, target: Path, place: Place, options: Options) -> Checked:
    """Writes the folder `target` and returns the result of its check.

    Raises the errors of `open_run` and `load`, ConfigError for a run that cannot be exported with these options, and
    DataError if the run's data are missing. DiskError: `target` is not empty or cannot be written. ExportRefused: the
    export does not answer like its run. After an error there is no `target`.
    """
    refuse_target(target)
    with whole_folder(target, "give another OUT_DIR") as folder:
        written = write_export(run, folder, load(open_run(run), place, by_peft=True), options)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        checked = check_export(
            folder, written.code, written.expected, written.reading, written.tolerance, written.device
        )
        write_card(folder, written.card, checked)
    return checked


def refuse_target(target: Path) -> None:
    """Raises DiskError for a target that is a link, a file or a folder with content.

    If it may be written, what killed exports left beside it is removed.
    """
    if target.is_symlink():
        raise DiskError(f"{target} is a symbolic link, which is not written through; give the folder itself")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DiskError(f"{target} exists and is not empty; give another OUT_DIR")
    remove_left_over(target)


def write_export(run: Path, folder: Path, trained: Trained, options: Options) -> Written:
    """Fills `folder` with everything except its README. Raises ConfigError if the run cannot be exported with
    `options`.
    """
    weights = _weights(run, trained, options)
    source = run / trained_weights.folder_name(trained.config.lora)
    reading = reading_of(trained, whole=isinstance(weights, Whole), peft_type=peft_type(source))
    expected = reference(trained, reading)
    code = loading_code(reading, weights)
    trained.tokenizer.save_pretrained(folder)
    if isinstance(reading, HiddenStates):
        write_head(folder, trained, reading.described)
    match weights:
        case Whole(compute):
            write_whole(folder, trained, reading, DTYPES[compute])
        case Base(name, adapted=adapted):
            exported_config(trained, reading).save_pretrained(folder)
            if adapted:
                write_adapter(source, folder, trained, reading, name)
    merged = weights.compute if isinstance(weights, Whole) else None
    allowed = tolerance(trained.config.precision, merged, float(expected.logits.abs().max()))
    card = card_of(run, options.name, trained, reading, weights, code)
    return Written(reading, code, expected, allowed, trained.backbone.device.type, card)


def _weights(run: Path, trained: Trained, options: Options) -> Weights:
    config = trained.config
    if options.merge or isinstance(config.lora, FullFinetune):
        return Whole(options.dtype or config.precision.compute)
    if is_random(config.model):
        raise ConfigError(f"{run} was trained over random weights, which no other tool has; give --merge")
    name = str(config.model.path)
    if options.for_others and Path(name).expanduser().is_dir():
        raise ConfigError(f"--push: {run} was trained over a local folder, which nobody else has; give --merge")
    return Base(name, config.model.revision, config.precision, adapted=not isinstance(config.lora, NoAdapter))
