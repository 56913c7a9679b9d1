"""Sweep folders to draw: synthetic ones, with every file that a trial leaves, whatever state it is in."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from conftest import tiny_config
from pyarrow import parquet

from danube_sweep.config.stored import plain_config
from danube_sweep.storage.run_folder import RunFolder

CLASSES = ["A", "B", "tie"]
BEGAN = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


@dataclass
class Sketch:
    """A trial to write: `quality` from 0 (knows nothing) to 1; None for one without predictions."""

    overrides: list[str]
    quality: float | None = 0.5
    state: str | None = "finished"
    error: str | None = None
    seconds: float = 60.0
    memory_gib: float = 1.0
    start_s: float = 0.0
    classes: Sequence[str] = field(default_factory=lambda: CLASSES)
    ids: Sequence[str] | None = None
    attempt: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """Values that its config has besides the overrides, by dotted key."""


def write_sweep(path: Path, sketches: Sequence[Sketch], *, rows: int = 200, steps: int = 40) -> Path:
    """A sweep folder of these trials."""
    path.mkdir(parents=True, exist_ok=True)
    settings = {"sweep": {"metric": "validation/log_loss", "goal": None, "trials": 20}, "pruner": {}}
    described = {"format": 1, "created": BEGAN.isoformat(), "command": ["danube-sweep", "-m"], "settings": settings}
    (path / "sweep.json").write_text(json.dumps({**described, "search": None}))
    plain = plain_config(tiny_config())
    for number, sketch in enumerate(sketches, start=1):
        _write_trial(path, number, sketch, plain, rows, steps)
    return path


def _write_trial(path: Path, number: int, sketch: Sketch, plain: dict[str, Any], rows: int, steps: int) -> None:
    words = [text.partition("=")[2][:24].replace("/", "-") for text in sketch.overrides]
    folder = RunFolder(path / f"{number:03d}_{'_'.join(words)[:60] or 'trial'}_{number:08x}")
    folder.path.mkdir()
    pairs = {key: _parsed(value) for key, _, value in (text.partition("=") for text in sketch.overrides)}
    config = yaml.safe_dump(_configured(plain, {**pairs, **sketch.config}), allow_unicode=True)
    folder.config.write_text(config, encoding="utf-8")
    identity = f"{number:032x}"
    described = {"format": 1, "number": number, "hash": identity, "overrides": sketch.overrides, "draw": None}
    folder.trial.write_text(json.dumps(described))
    if sketch.state in ("waiting", "invalid"):
        if sketch.state == "invalid":
            folder.result.write_text(json.dumps({"state": "invalid", "error": sketch.error, "left_out": False}))
        return
    folder.environment.write_text(json.dumps({"trial": identity, **ENVIRONMENT}))
    result: dict[str, Any] = {"trial": identity, "name": None, "seed": pairs.get("seed", 0), "state": sketch.state}
    result["predicted"] = {"peak_memory_bytes": round(sketch.memory_gib * 1.1 * 2**30), "seconds_per_step": 0.5}
    if sketch.quality is not None:
        share = 1.0 if sketch.state == "finished" else 0.4
        found = write_predictions(folder, sketch, rows, seed=number)
        write_curve(folder, found, round(steps * share), sketch.seconds * share, sketch.quality)
        result |= _ended(found, sketch, steps, rows)
    if sketch.state is None:  # it runs, or was interrupted
        folder.predictions.unlink(missing_ok=True)
        folder.checkpoints.mkdir()
        return
    if sketch.error is not None:
        result["error"] = sketch.error
    folder.result.write_text(json.dumps(result))
    started = (BEGAN + timedelta(seconds=sketch.start_s)).isoformat(timespec="seconds")
    attempt = {"state": sketch.state, "seconds": sketch.seconds, "started": started, "host": "here", "exit": 0}
    folder.attempts.write_text(json.dumps({**attempt, "reason": sketch.error, **sketch.attempt}) + "\n")


ENVIRONMENT = {
    "versions": {"python": "3.11.9", "danube_sweep": "0.1.0", "torch": "2.13.0"},
    "machine": {"host": "here", "system": "Linux", "cpus": 2},
    "device": {"kind": "cpu", "name": "x86_64", "threads": 1},
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "command": ["danube-sweep", "-m"],
}


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _configured(plain: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(plain))
    for key, value in values.items():
        *groups, last = key.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        if not isinstance(node.get(last), dict):  # a group's option: its fields stay
            node[last] = value
    return config


def write_predictions(folder: RunFolder, sketch: Sketch, rows: int, seed: int) -> dict[str, float]:
    """Predictions of a classifier as good as the sketch says; returns what they are worth."""
    assert sketch.quality is not None
    classes, names = list(sketch.classes), [f"row {number}" for number in range(rows)]
    shared, own = np.random.default_rng(7), np.random.default_rng(seed)
    labels_N = shared.integers(0, len(classes), size=rows)
    hard_N = shared.normal(size=rows)
    logits_NC = own.normal(scale=0.4, size=(rows, len(classes)))
    logits_NC[np.arange(rows), labels_N] += 3 * sketch.quality + 0.8 * hard_N
    probabilities_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    losses_N = -np.log(probabilities_NC[np.arange(rows), labels_N])
    columns: dict[str, Any] = {"id": list(sketch.ids or names), "loss": pa.array(losses_N, pa.float32())}
    columns["label"] = [classes[place] for place in labels_N]
    for place, name in enumerate(classes):
        columns[f"probability_{name}"] = pa.array(probabilities_NC[:, place], pa.float32())
    parquet.write_table(pa.table(columns), folder.predictions)
    right = float((probabilities_NC.argmax(axis=1) == labels_N).mean())
    return {"log_loss": float(losses_N.mean()), "accuracy": right, "macro_f1": right, "ece": 0.05}


def write_curve(folder: RunFolder, found: dict[str, float], steps: int, seconds: float, quality: float) -> None:
    """metrics.csv of a run that came from 1.1 down to where it is."""
    names = ["step", "part", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds", *found]
    noise = np.random.default_rng(steps).normal(scale=0.04, size=steps + 1)
    with folder.metrics.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        for step in range(1, steps + 1):
            level = found["log_loss"] + (1.1 - found["log_loss"]) * float(np.exp(-4 * step / steps))
            row = {"step": step, "epoch": round(step / steps, 3), "lr": 0.001, "grad_norm": 1.0, "tokens": step * 100}
            train = {**row, "part": "train", "loss": level + float(noise[step])}
            writer.writerow(train | ({"seconds": seconds * step / steps} if step % 5 == 0 or step == steps else {}))
            if step % max(1, steps // 5) == 0 or step == steps:
                here = {name: level if name == "log_loss" else value for name, value in found.items()}
                here |= found if step == steps else {}
                place = {"step": step, "epoch": row["epoch"], "seconds": seconds * step / steps}
                writer.writerow({"part": "validation", **place, **here})


def _ended(found: dict[str, float], sketch: Sketch, steps: int, rows: int) -> dict[str, Any]:
    measured: dict[str, Any] = {"peak_memory_bytes": round(sketch.memory_gib * 2**30), "tokens_per_s": 5000.0}
    measured["seconds"] = {"data": 1.0, "load": 1.0, "train": sketch.seconds * 0.8, "validation": sketch.seconds * 0.2}
    measured |= {"host": "here", "device": ENVIRONMENT["device"], **sketch.measured}
    return {
        "steps": steps,
        "epochs": 1.0,
        "best_step": steps,
        "train_loss": found["log_loss"],
        "validation": found,
        "test": None,
        "references": {"uniform_log_loss": 1.0986, "prior_log_loss": 1.0921},
        "rows": {"train": 4 * rows, "validation": rows},
        "parameters": {"backbone": 1_000_000, "trainable": 10_000},
        "measured": measured,
    }


def grid(count: int) -> list[Sketch]:
    """As many trials of a grid over rank, learning rate, targets and two seeds, on two slots."""
    ranks, rates, targets = [4, 8, 16, 32, 64], [1e-4, 2e-4, 3e-4, 1e-3, 3e-3], ["qv", "attention", "mlp", "all_linear"]
    cells = [(rank, lr, target) for rank in ranks for lr in rates for target in targets]
    sketches = []
    for number in range(count):
        rank, lr, target = cells[number // 2 % len(cells)]
        quality = 0.2 + 0.15 * np.log10(lr / 1e-5) + 0.04 * np.log2(rank) + 0.05 * targets.index(target)
        overrides = [f"lora.rank={rank}", f"optimizer.lr={lr}", f"lora.targets={target}", f"seed={number % 2}"]
        memory, start = 0.5 + rank / 40 + 0.2 * targets.index(target), 62.0 * (number // 2)
        sketches.append(Sketch(overrides, float(quality), memory_gib=memory, start_s=start, seconds=50 + rank / 8))
    return sketches


def distinct(count: int) -> list[Sketch]:
    """As many trials that are all rows of their own."""
    found = []
    for number in range(count):
        lr, dropout = 10 ** (-5 + 3 * ((number * 0.618) % 1)), round((number * 0.414) % 0.3, 3)
        rank, target = 2 ** (2 + number % 5), ["qv", "attention", "mlp", "all_linear"][number % 4]
        quality = 0.9 - abs(np.log10(lr) + 3.2) * 0.3 + 0.02 * np.log2(rank) - dropout * 0.2
        values = [f"lora.rank={rank}", f"optimizer.lr={lr:.3g}", f"lora.dropout={dropout}", f"lora.targets={target}"]
        sketch = Sketch(values, float(quality), start_s=30.0 * number, seconds=55.0 + rank / 4)
        sketch.memory_gib = 0.5 + rank / 40
        if number % 7 == 3:
            sketch.state = "pruned"
        if number % 23 == 5:
            sketch.state, sketch.quality, sketch.error = "oom", None, "out of memory with trainer.micro_batch=8"
        found.append(sketch)
    return found
