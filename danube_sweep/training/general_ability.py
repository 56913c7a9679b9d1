"""trainer.benchmark: the scores of the backbone before training, those of the trial after it, and the change."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep import paths
from danube_sweep.benchmark.find_tasks import find_task
from danube_sweep.benchmark.forgetting import change
from danube_sweep.benchmark.harness_model import generation_digest, harness_model, is_chat, with_template
from danube_sweep.benchmark.score_model import folder_digest, versions
from danube_sweep.benchmark.score_task import Score, Settings, score_task
from danube_sweep.benchmark.scored_parts import tasks_dir, tasks_of_trial
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.hub_download import local_folder
from danube_sweep.planner.benchmark_rows import benchmark_rows
from danube_sweep.storage.caches import alone
from danube_sweep.storage.files import read_json, write_json

Scores = dict[str, Score]
Said = Callable[[], None]


def score_before(config: Config, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> Scores:
    """The scores of the untrained backbone by task; {} where the trial scores no task.

    They are kept in the cache, so the trials of a sweep over one backbone share them. Raises ConfigError for an unknown
    task, DataError for one without data.
    """
    if not tasks_of_trial(config):
        return {}
    entry = paths.cache_dir() / "benchmark" / f"{_key(config, backbone, tokenizer)}.json"
    if (kept := _kept(entry)) is not None:
        return kept
    with alone(entry):
        if (kept := _kept(entry)) is not None:
            return kept
        found = score(config, backbone, tokenizer)
        try:
            write_json(entry, {name: asdict(one) for name, one in found.items()})
        except DiskError:
            return found  # a cache is never fatal
        return found


def score(config: Config, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, alive: Said = lambda: None) -> Scores:
    """The scores of the backbone with its present adapter, by task. `alive` is called in every forward pass.

    The states of random number generators are restored.
    """
    folder = tasks_dir(config)
    found: Scores = {}
    settings = Settings(limit=config.trainer.benchmark_limit, chat_template=is_chat(config, tokenizer))
    if settings.chat_template:
        tokenizer, _ = with_template(config, tokenizer)
    place: Path | None = None if is_random(config.model) else local_folder(config.model)
    hook = backbone.body.register_forward_hook(lambda *_: alive())
    try:
        with (
            _same_random_numbers(backbone.device),
            harness_model(backbone, tokenizer, batch_rows=benchmark_rows(config), folder=place) as model,
        ):
            for name in tasks_of_trial(config):
                found |= {one.task: one for one in score_task(model, find_task(name, folder), settings)}
    finally:
        hook.remove()
    return found


def compared(before: Scores, after: Scores) -> dict[str, Any]:
    """The part `benchmark` of a trial's result: for each task the scores, their change and its 95 % interval."""
    found = {}
    for name, score_after in after.items():
        apart = change(before[name], score_after)
        low, high = apart.interval or (None, None)
        found[name] = {
            "metric": score_after.metric,
            "before": before[name].value,
            "after": score_after.value,
            "stderr": score_after.stderr,
            "change": apart.value,
            "change_low": low,
            "change_high": high,
            "items": score_after.items,
            "shots": score_after.shots,
            "split": score_after.split,
        }
    return found


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    own, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)


def _key(config: Config, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> str:
    trainer, folder = config.trainer, tasks_dir(config)
    parts = [
        backbone.fingerprint,
        asdict(config.precision),
        [config.model.variant, asdict(config.model.chat)],
        [tokenizer.get_vocab(), tokenizer.chat_template],
        [tasks_of_trial(config), trainer.benchmark_limit, None if folder is None else folder_digest(folder)],
        [versions(), backbone.device.type, benchmark_rows(config)],
        generation_digest(None if is_random(config.model) else local_folder(config.model)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _kept(entry: Path) -> Scores | None:
    try:
        return {name: Score(**one) for name, one in read_json(entry).items()}
    except (OSError, CheckpointError, TypeError, AttributeError):
        return None
