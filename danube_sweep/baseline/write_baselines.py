"""The baselines of a split as folders: what each answered to the validation rows, and what that is worth."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danube_sweep.baseline.linear import MOST_ROWS, answers, losses
from danube_sweep.baseline.names import NAMES
from danube_sweep.config.identity import split_hash
from danube_sweep.config.schema import Config
from danube_sweep.data.encoded import Truth
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import Parts, group_codes
from danube_sweep.errors import DiskError
from danube_sweep.storage import predictions
from danube_sweep.storage.files import whole_folder, write_json
from danube_sweep.storage.predictions import Answered
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.metrics import measure


def write_baselines(folder: Path, split: str, config: Config) -> None:
    """Trains the baselines of a trial's split and writes each to <folder>/<split>_<name>, whole or not at all.

    A baseline that is there is kept. Raises DataError for what is wrong in the data, DiskError.
    """
    parts: Parts | None = None
    for name, words in NAMES.items():
        place = folder / f"{split}_{name}"
        if place.is_dir():
            continue
        parts = parts or load_parts(config.data, config.head.target)
        try:
            _write(place, name, config, parts, words=words)
        except DiskError:
            if not place.is_dir():  # else another worker of the sweep has just written the same
                raise


def _write(place: Path, name: str, config: Config, parts: Parts, *, words: bool) -> None:
    begun_s = time.monotonic()
    target, rows = config.head.target, parts.validation
    answers_NA = answers(parts, target, words=words)
    labels_NC = np.array([record.label for record in rows], dtype=np.float32)
    losses_N, ones_N = losses(answers_NA, labels_NC.astype(np.float64), target), np.ones(len(rows), dtype=np.float32)
    groups_N = group_codes([record.group for record in rows])
    found = torch.from_numpy(answers_NA).float()
    metrics = measure(target, parts.classes, found, torch.from_numpy(losses_N), Truth(labels_NC, ones_N))
    answered = Answered([record.id for record in rows], losses_N, labels_NC, ones_N, answers_NA, groups_N)
    described: dict[str, Any] = {
        "baseline": name,
        "data": type(config.data).__name__,
        "series": split_hash(replace(config, data=replace(config.data, fold=None)))[:8],
        "fold": config.data.fold,
        "folds": config.data.folds,
        "rows": {"train": min(len(parts.train), MOST_ROWS), "validation": len(rows)},
        "validation": metrics,
        "seconds": round(time.monotonic() - begun_s, 3),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(place) as temporary:
        predictions.write(RunFolder(temporary).predictions, target, parts.classes, answered)
        write_json(RunFolder(temporary).result, described)
