"""A soup as the folder of a run: `predict`, `export` and `label` take it like any other."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from danube_sweep.config.identity import HASH_VERSION, trial_hash
from danube_sweep.config.schema.states import State
from danube_sweep.config.stored import plain_config, sealed
from danube_sweep.inference.soup.average import Average
from danube_sweep.inference.soup.choose_soup import Worth
from danube_sweep.inference.soup.ingredients import Ingredient
from danube_sweep.inference.soup.validated import Validation, soup_config
from danube_sweep.storage import checkpoint, predictions
from danube_sweep.storage.files import read_json, write_json, write_yaml
from danube_sweep.storage.ownership import Kind, remove_files, remove_temporaries, remove_tree, take_over
from danube_sweep.storage.predictions import Answered
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.soup_file import is_unfinished_soup, write_soup_file
from danube_sweep.training import trained_weights
from danube_sweep.training.evaluate import Evaluation


@dataclass(frozen=True)
class Soup:
    """The content of a soup's folder: the ingredients in the average, its scores, and the average itself."""

    ingredients: list[Ingredient]
    average: Average
    evaluation: Evaluation
    """Of the average on the validation rows."""
    worth: Worth
    cut: dict[str, Any] | None
    """The cost of the lower rank; None for the exact average."""


def write_soup(output: Path, soup: Soup, validation: Validation) -> None:
    """Fills the folder: soup.json comes first, and result.json, which makes it a finished run, last.

    An unfinished soup gives way, and after an error nothing is left. Raises CheckpointError, DiskError.
    """
    if is_unfinished_soup(output):
        _empty(output)
    take_over(output, Kind.run)
    remove_temporaries(output, Kind.run)
    try:
        _write(output, soup, validation)
    except BaseException:  # Ctrl-C, a full disk
        with suppress(OSError):
            _empty(output)
        raise


def _empty(output: Path) -> None:
    remove_temporaries(output, Kind.run)
    remove_tree(output / "adapter")
    remove_files(output, Kind.run)


def _write(output: Path, soup: Soup, validation: Validation) -> None:
    first = soup.ingredients[0].run
    config = soup_config(first.config, soup.average.rank)
    folder, of_config = RunFolder(output), trial_hash(config)
    identity = soup_hash(of_config, soup.average)
    write_soup_file(output, _described(output, soup))
    write_yaml(folder.config, plain_config(config))
    known = read_json(RunFolder(first.path).environment)
    write_json(folder.environment, {**known, "trial": identity, "hash_version": HASH_VERSION, "also": [of_config]})
    model = validation.assembled(soup.average)
    manifest = {
        **{name: value for name, value in first.manifest.items() if name not in ("format", "files", "step")},
        "trial": identity,
        "config": sealed(config),
        "metrics": soup.evaluation.metrics,
    }

    def write_files(target: Path) -> None:
        trained_weights.save_trained(target, model)
        validation.prepared.tokenizer.save_pretrained(target)

    checkpoint.write_checkpoint(output / trained_weights.folder_name(config.lora), manifest, write_files)
    _write_predictions(folder, soup, validation)
    write_json(folder.result, _result(identity, soup, validation))


def soup_hash(of_config: str, made: Average) -> str:
    """32 hex digits over the hash of the config and every weight: averages of other trials may have one config."""
    found = hashlib.sha256(of_config.encode())
    pairs = {
        f"{name}.{letter}": one for name, two in made.adapter.items() for letter, one in zip("AB", two, strict=True)
    }
    for name, weight in sorted({**pairs, **made.head}.items()):
        found.update(f"{name} {weight.dtype} {list(weight.shape)} ".encode())
        found.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def _write_predictions(folder: RunFolder, soup: Soup, validation: Validation) -> None:
    rows, found = validation.rows, soup.evaluation
    answers_NA = None if found.answers_NA is None else found.answers_NA.numpy()
    answered = Answered(
        rows.examples, found.losses_N.numpy(), rows.truth.labels, rows.truth.weights, answers_NA, rows.example_groups
    )
    target = soup.ingredients[0].run.config.head.target
    predictions.write(folder.predictions, target, validation.prepared.classes, answered)


def _described(output: Path, soup: Soup) -> dict[str, Any]:
    here = output.resolve()
    named = [
        {
            "name": one.name,
            "run": os.path.relpath(one.run.path.resolve(), here),
            "trial": RunFolder(one.run.path).result_fields().get("trial"),
        }
        for one in soup.ingredients
    ]
    return {"ingredients": named, "worth": asdict(soup.worth), "cut": soup.cut}


def _result(identity: str, soup: Soup, validation: Validation) -> dict[str, Any]:
    stored = RunFolder(soup.ingredients[0].run.path).result_fields()
    copied: Sequence[str] = ("seed", "steps", "epochs", "best_step", "references", "prior", "rows")
    trainable = sum(a.numel() + b.numel() for a, b in soup.average.adapter.values())
    parameters = {**(stored.get("parameters") or {})}
    parameters["trainable"] = trainable + sum(one.numel() for one in soup.average.head.values())
    return {
        "trial": identity,
        "name": None,
        **{name: stored[name] for name in copied if name in stored},
        "state": State.finished.value,
        "validation": soup.evaluation.metrics,
        "test": None,
        "parameters": parameters,
        "measured": {},
    }
