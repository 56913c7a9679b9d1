"""All tasks over one model, before and after its training if it was trained, into a folder that can be resumed."""

import gc
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from danube_sweep.benchmark.find_tasks import FoundTask, find_task
from danube_sweep.benchmark.forgetting import change
from danube_sweep.benchmark.harness_model import harness_model, is_chat, with_template
from danube_sweep.benchmark.pinned_tasks import TEMPLATE_NOTE, VERSION, pinned
from danube_sweep.benchmark.plan_benchmark import TimeLeft, plan_tasks
from danube_sweep.benchmark.published import published_score
from danube_sweep.benchmark.score_folder import ScoreFolder
from danube_sweep.benchmark.score_task import SEEDS, Score, Settings, score_task
from danube_sweep.benchmark.task_requests import Amount
from danube_sweep.config.schema import Config
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.memory_signs import is_memory_error

Opened = tuple[Backbone, PreTrainedTokenizerBase, Path | None]
"""The model, its tokenizer, and the folder of its checkpoint if it has one."""

BEFORE: Final = "before"
MODEL: Final = "model"
"""The stages: the backbone as it was published, and the model that is asked about."""

PACKAGES: Final = ("lm_eval", "datasets", "transformers", "torch", "peft", "bitsandbytes", "danube_sweep")


@dataclass(frozen=True)
class Stage:
    """A model to score; `open` loads it only if a task is still to be done."""

    name: str
    open: Callable[[], Opened]


@dataclass(frozen=True)
class Job:
    """What is to be scored, and how."""

    config: Config
    tasks: list[str]
    settings: Settings
    batch_rows: int
    tasks_dir: Path | None = None
    identity: str = ""
    """Of the weights and the tokenizer, whatever was trained included."""
    described: dict[str, Any] = field(default_factory=dict)
    """The model in words, for benchmark.json."""

    @property
    def key(self) -> str:
        """What a folder is resumed by: the model, the settings and the versions."""
        model, precision = self.config.model, asdict(self.config.precision)
        prompts = [model.variant, asdict(model.chat)]
        own = None if self.tasks_dir is None else folder_digest(self.tasks_dir)
        parts = [self.identity, prompts, precision, asdict(self.settings), own, versions(), SEEDS]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Installed versions of what decides a score."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def score_model(job: Job, stages: Sequence[Stage], folder: ScoreFolder, say: Callable[[str], None]) -> dict[str, Any]:
    """Scores every task of every stage that the folder does not hold yet; returns what benchmark.json then holds.

    A task that runs out of memory ends in the state `oom`, and the others go on. Raises UserError for a task that is
    unknown, has no data or cannot be asked; what was done until then is kept.
    """
    folder.take(job.key)
    missing = {stage.name: [one for one in job.tasks if folder.read(stage.name, one) is None] for stage in stages}
    amount, left = Amount(job.settings.limit, job.settings.shots), [one for tasks in missing.values() for one in tasks]
    plan = plan_tasks(job.config, left, job.tasks_dir, amount, job.batch_rows)
    if left:
        say(f"planned time: {plan.said()}")
    scoring = _Scoring(job, folder, say, TimeLeft(plan, say))
    for stage in stages:
        if missing[stage.name]:
            scoring.stage(stage, missing[stage.name])
    summary = _summary(job, stages, folder, scoring.bad)
    folder.write(summary)
    return summary


@dataclass(frozen=True)
class _Scoring:
    """Scores tasks into a folder; those that ran out of memory are `bad`."""

    job: Job
    folder: ScoreFolder
    say: Callable[[str], None]
    left: TimeLeft
    bad: dict[str, dict[str, str]] = field(default_factory=dict)

    def stage(self, stage: Stage, tasks: Sequence[str]) -> None:
        """Loads a model and scores tasks over it."""
        job = self.job
        found = [find_task(task, job.tasks_dir) for task in tasks]  # a mistake is told before a model is loaded
        backbone, tokenizer, place = stage.open()
        settings = job.settings
        if settings.chat_template is None:
            settings = replace(settings, chat_template=is_chat(job.config, tokenizer))
        if settings.chat_template:
            tokenizer, note = with_template(job.config, tokenizer)
            if note:
                self.say(note)
        hook = backbone.body.register_forward_hook(self._passed, with_kwargs=True)
        try:
            with harness_model(backbone, tokenizer, batch_rows=job.batch_rows, folder=place) as model:
                for number, one in enumerate(found, 1):
                    self.say(f"{stage.name}: {one.name} ({number} of {len(tasks)})")
                    self._task(stage, one, model, settings)
        finally:
            hook.remove()
        del model, backbone
        _free()

    def _task(self, stage: Stage, task: FoundTask, model: Any, settings: Settings) -> None:
        self.left.began(task.name)
        began, scores, rows = time.monotonic(), None, self.job.batch_rows
        try:
            scores = score_task(model, task, settings)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_error(error):
                raise
            self.bad[task.name] = {"state": "oom", "error": _smaller(rows)}
            self.say(f"{task.name}: {self.bad[task.name]['error']}")
        self.left.ended(whole=scores is not None)
        if scores is None:  # now that the error is gone, whose traceback held the tensors
            _free()
            return
        measured = {"seconds": time.monotonic() - began, "batch_rows": rows, "chat_template": settings.chat_template}
        self.folder.keep(stage.name, task.name, scores, measured)

    def _passed(self, _body: Any, given: tuple[Any, ...], named: dict[str, Any], _found: Any) -> None:
        ids_BT = named.get("input_ids", given[0] if given else None)
        if ids_BT is not None:  # answers are written one token at a time
            self.left.passed(ids_BT.numel() if ids_BT.shape[1] > 1 else 0)


def _smaller(rows: int) -> str:
    way_out = f"give batch={rows // 2}" if rows > 1 else "give a precision with fewer bits, or another device"
    return f"out of memory with {rows} row{'s' * (rows > 1)} at a time; {way_out}"


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _summary(job: Job, stages: Sequence[Stage], folder: ScoreFolder, bad: dict[str, dict[str, str]]) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    notes: list[str] = []
    for task in job.tasks:
        stored = {stage.name: folder.read(stage.name, task) for stage in stages}
        if task in bad or any(one is None for one in stored.values()):
            tasks[task] = bad.get(task, {"state": "missing"})
            continue
        told = stored[MODEL]
        assert told is not None
        before = {score.task: score for score in (stored.get(BEFORE) or {"scores": []})["scores"]}
        for score in told["scores"]:
            tasks[score.task] = {"state": "finished", **_described(job, score), **_compared(before, score)}
            tasks[score.task] |= {key: value for key, value in told.items() if key != "scores"}
            notes += _notes(score, chat=bool(told.get("chat_template")))
    states = [one["state"] for one in tasks.values()]
    return {
        "key": job.key,
        "state": next((state for state in states if state != "finished"), "finished"),
        **job.described,
        "settings": {"limit": job.settings.limit, "seeds": SEEDS},
        "versions": versions(),
        "tasks": tasks,
        "notes": list(dict.fromkeys(notes)),
    }


def _described(job: Job, score: Score) -> dict[str, Any]:
    plain = {key: value for key, value in asdict(score).items() if key not in ("task", "scores", "prompts", "pooled")}
    chosen, model = pinned(score.task), job.config.model
    if chosen is None or model.variant == "base":
        return {**plain, "published": None}
    figure = published_score(str(model.path), chosen.label)
    return {**plain, "published": None if figure is None else float(figure)}


def _compared(before: dict[str, Score], score: Score) -> dict[str, Any]:
    if score.task not in before:
        return {}
    found = change(before[score.task], score)
    return {
        "before": {"value": before[score.task].value, "stderr": before[score.task].stderr},
        "change": {"value": found.value, "interval": found.interval},
    }


def _notes(score: Score, *, chat: bool) -> list[str]:
    chosen = pinned(score.task)
    if chosen is None:
        return []
    notes = [f"{score.task}: {chosen.note}", *([TEMPLATE_NOTE] if chat else [])]
    if score.shots != chosen.shots:
        notes.append(f"{score.task}: {score.shots} shots here, {chosen.shots} in the published figure")
    if float(score.version or 0) != chosen.version:
        notes.append(
            f"{score.task}: version {score.version} of the task here, {chosen.version} pinned (lm_eval {VERSION})"
        )
    return notes


def folder_digest(folder: Path) -> str:
    """A hash of every file below a folder of tasks."""
    found = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
        found.update(f"{file.relative_to(folder)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
