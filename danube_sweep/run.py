"""A config in, a run folder with a result out: build, fit, evaluate, save."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from danube_sweep import finish, lora, product
from danube_sweep.active import ActiveTrial, Phase, Prune, Surroundings
from danube_sweep.compose import plain_config, sealed
from danube_sweep.environment import environment, native_types, pick_device, versions
from danube_sweep.errors import BusyError, CheckpointError, ConfigError, DanubeSweepError, Interrupted, OutOfMemory
from danube_sweep.head import Head, build_head, needs_lm_head
from danube_sweep.model import Backbone, load_backbone
from danube_sweep.module import PackModule, fit
from danube_sweep.planner.device import planned_device
from danube_sweep.prediction import predicted
from danube_sweep.prepare import Prepared, prepare
from danube_sweep.progress import Screen
from danube_sweep.schema import Batching, Config
from danube_sweep.steps import StepPlan
from danube_sweep.stop import StopRequest
from danube_sweep.tracking import Tracker, given_out, open_tracker
from danube_sweep.trial import COMPLETE, MICRO_BATCH, RunFolder, read_json, redacted, trial_hash, write_json, write_text
from danube_sweep.validate import check_adapter, check_runs, check_types

MEMORY_SIGNS = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
"""What drivers and allocators say in a plain RuntimeError."""


@final
@dataclass
class Stopwatch:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Built:
    """What a trial trains with, on its device."""

    prepared: Prepared
    backbone: Backbone
    adapter: dict[str, nn.Parameter]
    head: Head


def run_trial(
    config: Config,
    path: Path,
    terminal: Screen,
    *,
    stop: StopRequest | None = None,
    prune: Prune | None = None,
    lock_wait_s: float = 1.0,
) -> dict[str, Any]:
    """Trains one trial in the folder `path`, or resumes what is there, or reports it; returns its result.json.

    `prune` may end it early. Raises UserError before anything is written, Interrupted after a checkpoint, and
    TrialFailed after a result.json that says how the trial ended.
    """
    folder, identity, watch = RunFolder(path), trial_hash(config), Stopwatch()
    with ExitStack() as stack:
        stack.enter_context(_locked(folder, lock_wait_s))
        stored = _stored_result(folder, identity)
        if stored is not None:
            _report_again(config, folder, identity, stored, terminal)
            return stored
        asked, config = config, _with_micro_batch(config, folder.micro_batch(config))
        requested = stop or stack.enter_context(StopRequest())
        with _memory_errors(config):
            built = build(config, watch)
        trial = _activate(config, asked, folder, identity, built, terminal)
        trial.where.prune = prune
        result: dict[str, Any] = {"trial": identity, "name": config.name, "seed": config.seed}
        result["predicted"] = trial.where.predicted
        result |= {"adjusted": {MICRO_BATCH: config.trainer.micro_batch}} if config is not asked else {}
        code = 1
        try:
            with _memory_errors(config):
                with watch.phase("fit"):
                    _train(built.backbone, trial, requested)
                result |= finish.finish(trial, built.prepared, built.backbone)
            code = 0
        except BaseException as error:
            result |= finish.failure(error)
            code = getattr(error, "exit_code", 1)
            if not isinstance(error, DanubeSweepError):
                terminal.record(traceback.format_exc())
            raise
        finally:
            _conclude(trial, result, finish.measured(trial, built.backbone, watch.seconds), code)
        if requested():
            raise Interrupted(f"this trial had just finished: {path}", requested.signal_number or 2)
        return result


def _with_micro_batch(config: Config, rows: int) -> Config:
    if rows == config.trainer.micro_batch:
        return config
    return replace(config, trainer=replace(config.trainer, micro_batch=rows))


@contextmanager
def _memory_errors(config: Config) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        named = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not named and not any(sign in str(error) for sign in MEMORY_SIGNS):
            raise
        raise OutOfMemory(
            f"out of memory with trainer.micro_batch={config.trainer.micro_batch}: lower it or data.max_length, or use "
            "precision.gradient_checkpointing=true or precision=nf4_dq"
        ) from error


def _conclude(trial: ActiveTrial, result: dict[str, Any], measured: dict[str, Any], exit_code: int) -> None:
    # Without a state the run was interrupted, or never began: it has no result and keeps its checkpoints.
    folder, tracker = trial.where.folder, trial.where.tracker
    complete = result.get("state") in COMPLETE
    if "state" in result:
        result["measured"] = measured
        write_json(folder.result, result)
        if complete:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
            tracker.publish(folder.predictions, folder.path / product.folder_name(trial.config.lora))
        tracker.summary({"state": result["state"], **_prefixed(result)})
    tracker.finish(exit_code)


def _report_again(config: Config, folder: RunFolder, identity: str, result: dict[str, Any], terminal: Screen) -> None:
    # A W&B agent waits for the run that it gave out, though the trial has been trained before.
    if not given_out():
        return
    tracker = _tracker(config, folder, identity, terminal)
    tracker.log(result["best_step"], _prefixed(result))
    tracker.summary({"state": result["state"], **_prefixed(result)})
    tracker.finish(0)


def _tracker(config: Config, folder: RunFolder, identity: str, terminal: Screen) -> Tracker:
    return open_tracker(
        config.tracking,
        run_id=identity,
        run_name=config.name or folder.path.name,
        folder=folder.path,
        resolved=plain_config(config),
        say=terminal.note,
    )


def build(config: Config, watch: Stopwatch) -> Built:
    """Data, backbone, adapter and head of a trial. Raises UserError; writes nothing but caches."""
    with watch.phase("data"):
        check_runs(planned_device(config.device))
        device = pick_device(config.device)
        check_types(config.precision, native_types(device), config.device.name)
        check_adapter(config, device.type)
        prepared = prepare(config)
    with watch.phase("load"):
        backbone = load_backbone(
            config.model,
            config.precision,
            with_lm_head=needs_lm_head(config.head),
            device=device,
            flat=config.data.batching is Batching.packed,
        )
        _check_positions(config, backbone)
        adapter = lora.attach(backbone, config.lora, seed=config.seed)
        head = build_head(
            config.head,
            hidden_size=backbone.hidden_size,
            classes=prepared.classes,
            tokenizer=prepared.tokenizer,
            lm_head=backbone.lm_head,
            seed=config.seed,
        ).to(device)
        head.start(prepared.parts["train"])
    return Built(prepared, backbone, adapter, head)


def _check_positions(config: Config, backbone: Backbone) -> None:
    limit = int(backbone.body.config.max_position_embeddings)
    if config.data.max_length > limit:
        raise ConfigError(
            f"data.max_length must be at most {limit}, the model's last position, got {config.data.max_length}"
        )


def _activate(
    config: Config, asked: Config, folder: RunFolder, identity: str, built: Built, terminal: Screen
) -> ActiveTrial:
    plain = plain_config(asked)  # by its config.yaml a trial is known again
    folder.result.unlink(missing_ok=True)  # of an attempt that failed
    terminal.log_to(folder.log)
    tracker = _tracker(asked, folder, identity, terminal)
    write_text(folder.config, yaml.safe_dump(redacted(plain), sort_keys=False, allow_unicode=True))
    write_json(folder.environment, {"trial": identity, **environment(built.backbone.device)})
    manifest = {
        "trial": identity,
        "backbone": built.backbone.fingerprint,
        "classes": built.prepared.classes,
        "pad_id": built.prepared.pad_id,
        "config": sealed(config),
        "versions": versions(),
    }
    where = Surroundings(folder, tracker, terminal, config.name or identity[:8], manifest)
    where.predicted, warning = predicted(config, built.backbone, built.prepared)
    if warning is not None:
        terminal.note(warning)
    plan = StepPlan(config, built.prepared.parts["train"], built.prepared.pad_id)
    return ActiveTrial(config, built.prepared.parts, plan, built.head, built.adapter, where)


def _train(backbone: Backbone, trial: ActiveTrial, stopping: Callable[[], bool]) -> None:
    try:
        fit(PackModule(backbone, [trial], stopping), accelerator=backbone.device.type)
    except SIGTERMException:  # Lightning's handler saw the signal too, in the first step, before ours was put back
        if trial.phase is Phase.running:
            trial.phase = Phase.paused
    if trial.error is not None:
        raise trial.error
    if trial.phase is Phase.paused:
        number = getattr(stopping, "signal_number", None) or 2
        step, total = trial.done.step, trial.plan.total_steps
        place = trial.where.folder.path
        raise Interrupted(f"at step {step} of {total}; go on with: danube-sweep resume {place}", number)


def _prefixed(result: dict[str, Any]) -> dict[str, float]:
    # The keys that were logged: a sweep's objective is found by them.
    return {f"validation/{name}": value for name, value in result.get("validation", {}).items()}


def _stored_result(folder: RunFolder, identity: str) -> dict[str, Any] | None:
    if folder.environment.is_file():
        other = read_json(folder.environment).get("trial")
        if other != identity:
            raise CheckpointError(
                f"{folder.path} holds another trial ({str(other)[:8]}, this one is {identity[:8]}); "
                "give another hydra.run.dir"
            )
    if folder.trial.is_file() and read_json(folder.trial).get("hash") not in (None, identity):
        raise CheckpointError(
            f"{folder.path}: its data or model files were changed since the sweep was planned; put back what they "
            "were, or start a new sweep"
        )
    result = folder.read_result()
    return result if result is not None and result["state"] in COMPLETE else None


@contextmanager
def _locked(folder: RunFolder, wait_s: float) -> Iterator[None]:
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=wait_s, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"{folder.path} is being trained by another process; wait for it or stop it") from error
    try:
        yield
    finally:
        lock.release()
        if not folder.config.is_file():
            folder.lock.unlink(missing_ok=True)
