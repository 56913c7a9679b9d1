"""The models of a benchmark command one after another, each in a process of its own, and the table of them all."""

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danube_sweep.benchmark.asked_model import check_language_model
from danube_sweep.benchmark.isolated import Ended, isolated
from danube_sweep.benchmark.score_folder import ScoreFolder
from danube_sweep.cli.benchmark_table import show_cells
from danube_sweep.cli.benchmark_words import Cell, Words
from danube_sweep.composer import compose
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Config, Device, NoAdapter
from danube_sweep.config.schema.states import State
from danube_sweep.errors import ConfigError, UserError
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.terminal.screen import Terminal

if TYPE_CHECKING:
    from danube_sweep.benchmark.score_model import Job, Opened, Stage


@dataclass(frozen=True)
class Request:
    """The part of the command that is the same for every model."""

    words: Words
    options: argparse.Namespace
    tasks_dir: Path | None


def run_cells(cells: Sequence[Cell], request: Request, out: Path) -> int:
    """Scores one model into `out`, or several into numbered folders in it. Returns the exit code.

    Raises UserError for a mistake, if possible before any model is loaded.
    """
    terminal = Terminal()
    configs = [None if cell.run is not None else _config(cell.overrides, terminal) for cell in cells]
    several = len(cells) > 1
    if several:
        take_over(out, Kind.benchmark)
        _warm()
    found = []
    for number, (cell, config) in enumerate(zip(cells, configs, strict=True)):
        place = out / f"{number:03d}" if several else out
        title = str(cell.run) if cell.run is not None else " ".join(cell.overrides) or "the default model"
        if several:
            terminal.note(f"{number + 1} of {len(cells)}: {title}")
        try:
            ended = _scored(cell, config, request, place, terminal)
        except UserError as error:
            if not several:
                raise
            ended = _invalid(error)  # the other models continue
        found.append({"title": title, "folder": place.name, **ended})
    if several:
        write_json(out / "benchmark.json", {"format": 1, "cells": found})
    show_cells(found, terminal)
    if several or "key" in found[0]:
        terminal.note(f"scores: {out / 'benchmark.json'}")
    return 0 if all(one["state"] == "finished" for one in found) else 1


def _warm() -> None:
    # Each model's process is a fork of this one, so the imports here happen once. They touch no GPU.
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    import lm_eval.evaluator
    import lm_eval.models.huggingface  # noqa: F401


def _config(overrides: Sequence[str], terminal: Terminal) -> Config:
    config = compose(overrides)
    check_language_model(config)
    if is_random(config.model):
        raise ConfigError(
            "benchmark needs trained weights, and this model has random ones; choose one, such as model=danube3_500m, "
            "or give model=auto model.path=FOLDER"
        )
    if heads := [one for one in overrides if one.startswith("head")]:
        terminal.note(f"{heads[0]}: a head takes no part in a benchmark; the backbone alone is scored")
    return replace(config, lora=NoAdapter())


def _scored(cell: Cell, config: Config | None, request: Request, place: Path, terminal: Terminal) -> dict[str, Any]:
    taken = multiprocessing.get_context("fork").Value("b", 0, lock=False)  # a lock could die with its holder

    def took() -> None:
        taken.value = 1

    def work() -> dict[str, Any]:
        return _score(cell, config, request, ScoreFolder(place, took), terminal.note)

    hours = request.words.timeout_h
    ended = isolated(work, None if hours is None else hours * 3600)
    if ended.error is None:
        value: dict[str, Any] = ended.value
        return value
    return _broken(place, ended) if taken.value else {"state": ended.state, "error": ended.error, "tasks": {}}


def _invalid(error: UserError) -> dict[str, Any]:
    return {"state": State.invalid.value, "error": str(error), "tasks": {}}


def _broken(place: Path, ended: Ended) -> dict[str, Any]:
    # The finished tasks are under scores/, and the same command continues from there.
    kept = {"tasks": {}, **read_json(place / "benchmark.json"), "state": ended.state, "error": ended.error}
    write_json(place / "benchmark.json", kept)
    return kept


# ------------------------------------------------------------------------------------------ in a process of its own


def _score(
    cell: Cell, config: Config | None, request: Request, folder: ScoreFolder, note: Callable[[str], None]
) -> dict[str, Any]:
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    from danube_sweep.benchmark.score_model import score_model

    job, stages = _of_model(config, request) if config is not None else _of_run(cell, request, note)
    return score_model(job, stages, folder, note)


def _of_model(config: Config, request: Request) -> "tuple[Job, list[Stage]]":
    from danube_sweep.benchmark.score_model import MODEL, Stage
    from danube_sweep.config.tokenizer_identity import tokenizer_identity
    from danube_sweep.config.weights_identity import weights_identity
    from danube_sweep.model.hub_download import local_folder

    folder = local_folder(config.model)
    identity = f"{weights_identity(folder)} {tokenizer_identity(folder)}"
    return _job(config, request, identity, {}), [Stage(MODEL, lambda: _published(config))]


def _published(config: Config) -> "Opened":
    """The backbone as it was published, with its output layer."""
    from danube_sweep.config.validate import check_types
    from danube_sweep.data.tokenizer import load_tokenizer
    from danube_sweep.model.backbone import load_backbone
    from danube_sweep.model.hub_download import local_folder
    from danube_sweep.training.device import native_types, pick_device

    device = pick_device(config.device)
    check_types(config.precision, native_types(device), config.device.name)
    backbone = load_backbone(config.model, config.precision, with_lm_head=True, device=device)
    return backbone, load_tokenizer(config.model), local_folder(config.model)


def _of_run(cell: Cell, request: Request, say: Callable[[str], None]) -> "tuple[Job, list[Stage]]":
    from danube_sweep.benchmark.score_model import BEFORE, MODEL, Stage
    from danube_sweep.inference.benchmarked_run import check_benchmarked, load_benchmarked
    from danube_sweep.inference.predict import Place, check_backbone, open_run

    assert cell.run is not None
    options = request.options
    run = open_run(cell.run)
    note = check_benchmarked(run)
    if note is not None:
        say(note)
    place = Place(Device(accelerator=options.accelerator), model_path=options.model_path)
    config = replace(run.config, device=place.device)
    if options.model_path is not None:
        config = replace(config, model=replace(config.model, path=str(options.model_path.expanduser().absolute())))

    def trained() -> "Opened":
        loaded = load_benchmarked(run, place, merge=options.merge)
        return loaded.backbone, loaded.tokenizer, _checkpoint(config)

    def untrained() -> "Opened":
        from danube_sweep.config.schema import Init
        from danube_sweep.data.tokenizer import load_tokenizer
        from danube_sweep.training.assemble import load_base
        from danube_sweep.training.device import pick_device

        own = replace(config.model, path=str(run.weights), init=Init.pretrained)
        backbone = load_base(config, pick_device(config.device), spare=True)
        check_backbone(run, config, backbone)
        return backbone, load_tokenizer(own), _checkpoint(config)

    described = {"run": str(cell.run), "merged": options.merge}
    identity = f"{run.manifest['trial']} {run.manifest.get('files')} {options.merge}"
    stages = [Stage(MODEL, trained)] if options.after_only else [Stage(BEFORE, untrained), Stage(MODEL, trained)]
    return _job(config, request, identity, described), stages


def _checkpoint(config: Config) -> Path | None:
    from danube_sweep.model.hub_download import local_folder

    return None if is_random(config.model) else local_folder(config.model)


def _job(config: Config, request: Request, identity: str, described: dict[str, Any]) -> "Job":
    from danube_sweep.benchmark.harness_model import generation_digest
    from danube_sweep.benchmark.score_model import Job
    from danube_sweep.benchmark.score_task import Settings
    from danube_sweep.planner.benchmark_rows import benchmark_rows
    from danube_sweep.training.device import pick_device

    identity += f" {generation_digest(_checkpoint(config))} {pick_device(config.device).type}"
    words, model, precision = request.words, config.model, config.precision
    described = {
        "model": {"path": model.path, "revision": model.revision, "variant": model.variant},
        "precision": {"storage": precision.storage.value, "compute": precision.compute.value,
                      "double_quant": precision.double_quant},
        **described,
    }  # fmt: skip
    return Job(
        config,
        words.tasks,
        Settings(words.limit, words.shots, words.chat_template),
        words.batch or benchmark_rows(config),
        request.tasks_dir,
        identity,
        described,
    )
