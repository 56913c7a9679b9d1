"""The requests of a task, before it is loaded: from the facts of well-known tasks, or from local YAML and jsonl."""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from danube_sweep.benchmark.find_tasks import names_in
from danube_sweep.benchmark.pinned_tasks import pinned
from danube_sweep.benchmark.scored_parts import Function, descriptions
from danube_sweep.benchmark.task_facts import FACTS, TaskFacts
from danube_sweep.data.size import CHARACTERS_PER_TOKEN
from danube_sweep.planner.benchmark_seconds import Requests

SAMPLED: Final = 200
"""Items of a local file whose lengths stand for all."""
GENERATED: Final = 256
"""Tokens that the harness lets a model write where a task does not say."""


@dataclass(frozen=True)
class Amount:
    """How much of a task is asked, as in `Settings`."""

    limit: int | None = None
    shots: int | None = None


def requests_of(name: str, folder: Path | None, amount: Amount) -> Requests | None:
    """What a task asks of a model; None if its data are not a local file and nobody has counted them."""
    if name in FACTS and (folder is None or name not in names_in(folder)):
        return _counted(name, FACTS[name], amount)
    parts = [None if one is None else _described(one, amount) for one in descriptions(name, folder)]
    known = [part for part in parts if part is not None]
    return _sum(known) if known and len(known) == len(parts) else None


def _counted(name: str, facts: TaskFacts, amount: Amount) -> Requests:
    chosen = pinned(name)
    shots = facts.shots if chosen is None else chosen.shots
    if amount.shots is not None and facts.example_tokens:
        shots = amount.shots
    items = facts.items if amount.limit is None else min(facts.items, amount.limit * facts.subtasks)
    tokens = facts.item_tokens + shots * facts.example_tokens
    if facts.answer_tokens:
        return Requests(generated=items, prompt_tokens=tokens, answer_tokens=facts.answer_tokens)
    return Requests(scored=items * facts.rows, scored_tokens=tokens)


def _sum(parts: Sequence[Requests]) -> Requests:
    scored, generated = sum(one.scored for one in parts), sum(one.generated for one in parts)
    return Requests(
        scored=scored,
        scored_tokens=sum(one.scored * one.scored_tokens for one in parts) / max(scored, 1),
        generated=generated,
        prompt_tokens=sum(one.generated * one.prompt_tokens for one in parts) / max(generated, 1),
        answer_tokens=sum(one.generated * one.answer_tokens for one in parts) / max(generated, 1),
    )


# ---------------------------------------------------------------------------------------------------- local tasks


def _described(task: Mapping[str, Any], amount: Amount) -> Requests | None:
    """The requests of a task with local jsonl; None where its data or its choices cannot be read without loading it."""
    rows = _rows(task)
    if not rows:
        return None
    items = len(rows) if amount.limit is None else min(len(rows), amount.limit)
    own = task.get("num_fewshot")
    shots = own if own == 0 or amount.shots is None else amount.shots
    try:
        return _requests(task, rows[:SAMPLED], items, int(shots or 0))
    except (ValueError, SyntaxError, TypeError, KeyError):
        return None


def _rows(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    split = task.get("test_split") or task.get("validation_split")
    files = (task.get("dataset_kwargs") or {}).get("data_files")
    named = files.get(split) if isinstance(files, dict) else None
    places = [named] if isinstance(named, str) else named
    if task.get("dataset_path") != "json" or not isinstance(places, list):
        return []
    found = []
    for place in map(Path, places):
        if not place.is_file():
            return []
        try:
            found += [json.loads(line) for line in place.read_text(encoding="utf-8").split("\n") if line.strip()]
        except ValueError:
            return []
    return found if all(isinstance(row, dict) for row in found) else []


def _requests(task: Mapping[str, Any], sample: Sequence[Mapping[str, Any]], items: int, shots: int) -> Requests:
    kind, texts = task.get("output_type"), [_text(task.get("doc_to_text", ""), row) for row in sample]
    prompt = fmean(map(_tokens, texts))
    if kind == "multiple_choice":
        choices = [_choices(task["doc_to_choice"], row) for row in sample]
        number, answer = fmean(map(len, choices)), fmean(_tokens(one) for each in choices for one in each)
        letters = all(len(one.strip()) == 1 for each in choices for one in each)  # read from one pass
        length = prompt + answer
        return Requests(scored=items * (1 if letters else number), scored_tokens=length * (1 + shots))
    targets = [_text(task.get("doc_to_target", ""), row) for row in sample]
    length = prompt + fmean(map(_tokens, targets))
    if kind == "generate_until":
        most = float((task.get("generation_kwargs") or {}).get("max_gen_toks", GENERATED))
        return Requests(generated=items, prompt_tokens=prompt + shots * length, answer_tokens=most)
    return Requests(scored=items, scored_tokens=length * (1 + shots))


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _text(spec: Any, row: Mapping[str, Any]) -> str:
    """A task's template, or a field's name, over a row. Raises ValueError for a function, which is not called."""
    if not isinstance(spec, str) or isinstance(spec, Function):
        raise ValueError(f"{spec!r} is no template")
    if spec in row:
        return str(row[spec])
    if "{" not in spec:
        return spec
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(spec).render(**row)
    except TemplateError as error:
        raise ValueError(str(error)) from error


def _choices(spec: Any, row: Mapping[str, Any]) -> list[str]:
    found = spec if isinstance(spec, list) else row.get(spec) if spec in row else ast.literal_eval(_text(spec, row))
    if not isinstance(found, list) or not found:
        raise ValueError(f"{spec!r} gives no choices")
    return [str(one) for one in found]
