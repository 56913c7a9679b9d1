"""One task over one model: the harness's scores with their standard errors, and a score for every item."""

import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from os import devnull
from typing import Any, Final

import numpy as np

from danube_sweep.benchmark.find_tasks import FoundTask
from danube_sweep.benchmark.pinned_tasks import pinned
from danube_sweep.errors import DataError

SEEDS: Final = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The harness's own defaults. `fewshot` decides which examples stand before an item."""


@dataclass(frozen=True)
class Settings:
    """How tasks are scored; None is as the task or its pin has it."""

    limit: int | None = None
    """Items of each task, from the first."""
    shots: int | None = None
    chat_template: bool | None = None
    """None is as the model's variant has it."""


@dataclass(frozen=True)
class Score:
    """What is said of one task, or of a group of tasks as a whole."""

    task: str
    metric: str
    """With its filter: `acc_norm,none`."""
    value: float
    stderr: float | None
    higher_is_better: bool
    items: int
    shots: int
    version: Any
    split: str
    kind: str
    metrics: dict[str, dict[str, float | None]]
    """Every metric of the harness with value and standard error."""
    members: dict[str, float]
    """Of a group, the metric of each task in it."""
    scores: list[list[float]]
    """Of every item: its value, or of a perplexity its log-likelihood and the number of words, bytes or tokens."""
    prompts: list[str]
    """The hash of every item's prompt, by which items of two models are known to be the same."""
    pooled: bool
    """Whether the metric is a mean over all items, so that items of a group count alike."""


def shots_of(name: str, settings: Settings) -> int | None:
    """The examples before every item; None for the task's own number."""
    if settings.shots is not None:
        return settings.shots
    found = pinned(name)
    return None if found is None else found.shots


def score_task(model: Any, found: FoundTask, settings: Settings) -> list[Score]:
    """Scores of a task; of a group as one, of a tag for each of its tasks.

    As `lm_eval.simple_evaluate` does it, which also spends seconds on a report about the machine. Raises DataError for
    a task that cannot be asked so.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.utils import set_torch_seed

    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    set_torch_seed(SEEDS["torch"])
    _set_shots(found, shots_of(found.name, settings))
    try:
        with _quiet():
            results = evaluate(
                lm=model,
                task_dict=found.loaded,
                limit=settings.limit,
                apply_chat_template=bool(settings.chat_template),
                fewshot_as_multiturn=True,
            )
    except (ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"tasks={found.name}: it cannot be asked ({type(error).__name__}: {said}); check its fields and shots"
        ) from error
    return _scores(found, results)


def _set_shots(found: FoundTask, shots: int | None) -> None:
    # A task that states 0 keeps it: its prompt holds the examples already.
    for task in found.tasks.values():
        own = task.get_config("num_fewshot")
        if shots is not None and own != 0:
            task.set_config(key="num_fewshot", value=shots)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEEDS["fewshot"])


@contextmanager
def _quiet() -> Iterator[None]:
    # Its bars are for people: in a file they are noise.
    if sys.stderr.isatty():
        yield
        return
    with open(devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield


def _scores(found: FoundTask, results: Any) -> list[Score]:
    groups = results.get("groups") or {}
    if found.name in groups:
        return [_score(found, results, found.name, [*found.tasks], groups[found.name])]
    return [_score(found, results, name, [name], results["results"][name]) for name in found.tasks]


def _score(found: FoundTask, results: Any, name: str, members: list[str], row: dict[str, Any]) -> Score:
    metric = _main_metric(name, row)
    short, _, filtered = metric.partition(",")
    samples = [one for member in members for one in results["samples"][member] if one["filter"] == filtered]
    first = found.tasks[members[0]]
    better = {member: results["higher_is_better"][member] for member in members}
    return Score(
        task=name,
        metric=metric,
        value=float(row[metric]),
        stderr=_number(row.get(_stderr(metric))),
        higher_is_better=bool(better[members[0]].get(short, True)),
        items=sum(results["n-samples"][member]["effective"] for member in members),
        shots=max(results["n-shot"][member] for member in members),
        version=results["versions"].get(name, results["versions"].get(members[0])),
        split=found.split,
        kind=str(first.OUTPUT_TYPE),
        metrics={key: {"value": _number(row[key]), "stderr": _number(row.get(_stderr(key)))} for key in _metrics(row)},
        members={} if members == [name] else {one: float(results["results"][one][metric]) for one in members},
        scores=[_item(one[short]) for one in samples],
        prompts=[f"{one['doc_hash'][:16]}{one['prompt_hash'][:16]}" for one in samples],
        pooled=members == [name] or _weighted(results["results"], members, metric, row),
    )


def _weighted(rows: Any, members: list[str], metric: str, row: dict[str, Any]) -> bool:
    sizes = [rows[one]["sample_len"] for one in members]
    mean = sum(rows[one][metric] * size for one, size in zip(members, sizes, strict=True)) / sum(sizes)
    return math.isclose(mean, row[metric], rel_tol=1e-9)


def _metrics(row: dict[str, Any]) -> list[str]:
    return [key for key, value in row.items() if "," in key and "_stderr," not in key and _number(value) is not None]


def _main_metric(name: str, row: dict[str, Any]) -> str:
    metrics, chosen = _metrics(row), pinned(name)
    if not metrics:
        raise DataError(f"tasks={name}: the harness reports no number for it; choose a task with a metric")
    if chosen is not None and chosen.metric in metrics:
        return chosen.metric
    normalised = [key for key in metrics if key.startswith("acc_norm,")]
    return [*normalised, *metrics][0]


def _stderr(metric: str) -> str:
    short, _, filtered = metric.partition(",")
    return f"{short}_stderr,{filtered}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str) or value is None:
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def _item(value: Any) -> list[float]:
    # Some metrics keep texts for a corpus-wide score: they have no number per item.
    try:
        return [float(one) for one in value] if isinstance(value, list | tuple) else [float(value)]
    except (TypeError, ValueError):
        return []
