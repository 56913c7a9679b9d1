"""The beginning of a trial: its folder taken, its data read, its model assembled, its files begun."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from filelock import Timeout

from danube_sweep.benchmark.pinned_tasks import named_tasks
from danube_sweep.benchmark.scored_parts import tasks_of_trial
from danube_sweep.config.facts.positions import length_note, row_limit, too_long
from danube_sweep.config.identity import HASH_VERSION, hub_source, is_random, other_hashes
from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import plain_config, sealed
from danube_sweep.config.validate import SHARDED, check_adapter, check_package, check_runs, check_types
from danube_sweep.data.layout import layout_for
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import BusyError, CheckpointError, ConfigError
from danube_sweep.model.backbone import Backbone
from danube_sweep.planner.what_fits import with_micro_batch
from danube_sweep.storage.checkpoint_places import place_checkpoints
from danube_sweep.storage.files import write_json, write_yaml, writing
from danube_sweep.storage.locks import FolderLock
from danube_sweep.storage.ownership import Kind, give_back, remove_temporaries, take_over
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.soup_file import is_unfinished_soup
from danube_sweep.terminal.screen import Screen
from danube_sweep.tracking import Tracker, open_tracker
from danube_sweep.training.assemble import AssembledModel, assemble, load_base
from danube_sweep.training.device import native_types, pick_device
from danube_sweep.training.environment import environment, versions
from danube_sweep.training.forecast import predicted
from danube_sweep.training.general_ability import Scores, score_before
from danube_sweep.training.journal import Surroundings
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.prepare import Prepared, prepare
from danube_sweep.training.ranks import ALONE, Ranks
from danube_sweep.training.resume import ARITHMETIC
from danube_sweep.training.step_plan import StepPlan
from danube_sweep.training.trial import ActiveTrial, Judge

ORDER = ("order_seed", "batching", "layout", "cache_prefix")
"""Fields of data that say when and how rows are read, not which."""

VIEW = (*ORDER, "fold", "max_length", "truncation")
"""Fields of data that make no other data set for a reader of the terminal."""


@dataclass(frozen=True)
class Entrant:
    """A trial that is to train: its config, its folder, its screen, and who judges it at its validations."""

    config: Config
    path: Path
    terminal: Screen
    judge: Judge | None = None


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


@dataclass(eq=False)
class Taken:
    """A trial whose folder this process holds until `release`."""

    entrant: Entrant
    config: Config
    """With the micro-batch that a sweep has given it."""
    identity: str
    hash_version: int
    folder: RunFolder
    held: ExitStack
    stored: dict[str, Any] | None
    """The result of an earlier process, complete."""
    watch: Stopwatch = field(default_factory=Stopwatch)

    def release(self) -> None:
        """Lets others have the folder."""
        self.held.close()


def take(entrant: Entrant, lock_wait_s: float) -> Taken:
    """Takes the trial's folder. Raises UserError: BusyError for one that another process trains in, …"""
    folder = RunFolder(entrant.path)
    with ExitStack() as stack:
        version, identity = folder.hash_version(), folder.hash_of(entrant.config)
        stack.enter_context(_locked(folder, lock_wait_s))
        if is_unfinished_soup(folder.path):
            raise CheckpointError(
                f"{folder.path} is an unfinished soup; make it again by the same danube-sweep soup command"
            )
        remove_temporaries(folder.path, Kind.run)
        if folder.environment.is_file() and folder.stated_environment() is None:
            entrant.terminal.note(f"{folder.environment} is damaged and does not count")
        stored = _stored_result(folder, identity)
        config = entrant.config
        if stored is None and (rows := folder.micro_batch(config)) != config.trainer.micro_batch:
            config = with_micro_batch(config, rows)
        return Taken(entrant, config, identity, version, folder, stack.pop_all(), stored)


@final
class PackBuilder:
    """Makes trials over one backbone, which the first of them loads; equal data are read once and are one object.

    Of several `ranks` only the leading one scores benchmarks. With device.sharding=full they divide the backbone.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._pack: TrainingPack | None = None
        self._prepared: dict[str, Prepared] = {}
        self._device: torch.device | None = None
        self._before: dict[int, Scores] = {}

    @property
    def pack(self) -> TrainingPack:
        """The pack over the backbone; there is none before the first trial is built."""
        assert self._pack is not None
        return self._pack

    def before(self, prepared: Prepared) -> Scores:
        """The benchmark's scores before anything was trained, {} without one."""
        return self._before[id(prepared)]

    def build(self, config: Config, watch: Stopwatch) -> tuple[Prepared, AssembledModel]:
        """Data and model of a trial. Raises UserError; writes nothing but caches."""
        with watch.phase("data"):
            check_runs(config.device)  # a named option; whether torch runs the GPU that is here, pick_device says
            check_package(config.tracking)
            device = self._device = self._device or pick_device(config.device)
            check_types(config.precision, native_types(device), config.device.name)
            check_adapter(config, device.type)
            prepared = self._prepare(config)
        with watch.phase("load"):
            pack = self._pack = self._pack or TrainingPack(_base(config, prepared, device, self._ranks))
            _check_positions(config, pack.backbone)
        with watch.phase("benchmark"):
            if self._ranks.leads and id(prepared) not in self._before:
                self._before[id(prepared)] = score_before(config, pack.untrained(), prepared.tokenizer)
        with watch.phase("load"):
            model = assemble(
                config,
                pack.backbone,
                classes=prepared.classes,
                tokenizer=prepared.tokenizer,
                adapters=pack.adapters,
            )
            model.head.start(prepared.parts["train"])
        return prepared, model

    def _prepare(self, config: Config) -> Prepared:
        layout = layout_for(config.model, config.data, config.head)
        data = {name: value for name, value in asdict(config.data).items() if name not in ORDER}
        key = json.dumps([asdict(config.model), data, asdict(layout), config.head.target.value], default=str)
        if key not in self._prepared:
            self._prepared[key] = prepare(config)
        return self._prepared[key]


def _base(config: Config, prepared: Prepared, device: torch.device, ranks: Ranks) -> Backbone:
    padding = StepPlan(config, prepared.parts["train"], prepared.pad_id).padding()
    mesh = ranks.mesh(device) if config.device.sharding == SHARDED and ranks.count > 1 else None
    return load_base(config, device, padding=padding, spare=bool(tasks_of_trial(config)), mesh=mesh)


def _check_positions(config: Config, backbone: Backbone) -> None:
    limit = row_limit(backbone.body.config.to_dict())
    if limit is not None and config.data.max_length > limit:
        raise ConfigError(too_long(limit, config.data.max_length))


def _length_note(model: AssembledModel, prepared: Prepared) -> str | None:
    config, described = model.config, model.backbone.body.config.to_dict()
    longest = max(int(part.lengths.max()) for part in prepared.parts.values())
    pretrained = longest if is_random(config.model) else int(described.get("max_position_embeddings") or longest)
    return length_note(row_limit(described), pretrained, max_length=config.data.max_length, longest=longest)


def activate(taken: Taken, prepared: Prepared, model: AssembledModel, ranks: Ranks) -> ActiveTrial:
    """Begins the trial's files; from here on its folder is that of a run."""
    config, asked, folder, terminal = taken.config, taken.entrant.config, taken.folder, taken.entrant.terminal
    plan = StepPlan(config, prepared.parts["train"], prepared.pad_id, ranks)  # may refuse, so before any file
    plain = plain_config(asked)  # by its config.yaml a trial is known again
    with writing(folder.result):
        folder.result.unlink(missing_ok=True)  # of an attempt that failed
        folder.paused.unlink(missing_ok=True)
    stay = place_checkpoints(folder, config.storage.checkpoints)
    terminal.log_to(folder.log)
    other_rows = _other_rows(taken)
    write_yaml(folder.config, plain)
    found = {**_known_as(taken), **environment(model.backbone.device)}
    manifest = {
        "trial": taken.identity,
        ARITHMETIC: HASH_VERSION,
        "backbone": model.backbone.fingerprint,
        "hub": hub_source(config.model),
        "classes": prepared.classes,
        "pad_id": prepared.pad_id,
        "flat": model.backbone.flat,
        "config": sealed(config),
        "versions": versions(),
    }
    where = Surroundings(folder, tracker_of(taken), terminal, config.name or taken.identity[:8], manifest)
    where.told.append((_data_set(config), prepared.description.lines()))
    if prepared.markup_note is not None:
        where.told.append((f"{config.model.path}: {prepared.markup_note}", [prepared.markup_note]))
    write_json(folder.environment, {**found, "data": asdict(prepared.description), **_steps(plan, config)})
    where.predicted, warning = predicted(config, model.backbone, prepared, plan)
    notes = _length_note(model, prepared), plan.waiting_note(), _sharding_note(config, ranks), _unscored(config)
    for line in (stay, other_rows, warning, *notes):
        if line is not None:
            terminal.note(line)
    return ActiveTrial(model, prepared.parts, plan, where, taken.entrant.judge)


def _sharding_note(config: Config, ranks: Ranks) -> str | None:
    if config.device.sharding != SHARDED or ranks.count > 1:
        return None
    return f"device.sharding={SHARDED} divides nothing here: this trial has one device, which holds the whole backbone"


def _other_rows(taken: Taken) -> str | None:
    # The micro-batch is no part of the trial: a run that is continued may have begun with another one.
    folder, rows = taken.folder, taken.entrant.config.trainer.micro_batch
    with suppress(OSError, Undecodable, KeyError, TypeError):
        before = yaml_of(folder.config)["trainer"]["micro_batch"]
        if before != rows and folder.checkpoints.is_dir():
            return f"trainer.micro_batch={rows} from here on, {before} before: the same trial in other forward passes"
    return None


def _unscored(config: Config) -> str | None:
    scored = tasks_of_trial(config)
    left_out = [one for one in named_tasks(config.trainer.benchmark) if one not in scored]
    if not left_out:
        return None
    return f"trainer.benchmark: {', '.join(left_out)} is left out, as it has a test split, for a sweep's winner alone"


def _steps(plan: StepPlan, config: Config) -> dict[str, float]:
    warmup = min(1.0, config.schedule.warmup * plan.scheduled_steps / plan.total_steps)
    return {"total_steps": plan.total_steps, "scheduled_steps": plan.scheduled_steps, "warmup_share": warmup}


def _data_set(config: Config) -> str:
    """The same text for trials of one data set, with any fold of it and any length of rows."""
    data = {name: value for name, value in asdict(config.data).items() if name not in VIEW}
    return json.dumps([type(config.data).__name__, data], default=str)


def _known_as(taken: Taken) -> dict[str, Any]:
    """The trial's hash, and those by other names of its backbone."""
    current = taken.hash_version == HASH_VERSION
    names = [*other_hashes(taken.entrant.config)] if current else []
    return {"trial": taken.identity, "hash_version": taken.hash_version, "also": names}


def tracker_of(taken: Taken) -> Tracker:
    """The trial's tracker, opened."""
    config = taken.entrant.config
    return open_tracker(
        config.tracking,
        run_id=taken.identity,
        run_name=config.name or taken.folder.path.name,
        folder=taken.folder.path,
        resolved=plain_config(config),
        say=taken.entrant.terminal.note,
    )


def _stored_result(folder: RunFolder, identity: str) -> dict[str, Any] | None:
    result = folder.read_result()
    other = (folder.stated_environment() or result or {}).get("trial")
    if other not in (None, identity):
        raise CheckpointError(
            f"{folder.path} holds another trial ({str(other)[:8]}, this one is {identity[:8]}); "
            "give another hydra.run.dir"
        )
    if (folder.stated_trial() or {}).get("trial") not in (None, identity):
        raise CheckpointError(
            f"{folder.path}: its data or model files were changed since the sweep was planned; put back what they "
            "were, or start a new sweep"
        )
    return result if result is not None and result["state"] in COMPLETE else None


@contextmanager
def _locked(folder: RunFolder, wait_s: float) -> Iterator[None]:
    take_over(folder.path, Kind.run)
    lock = FolderLock(folder.lock, wait_s)
    try:
        with writing(folder.path):
            lock.acquire()
    except Timeout as error:
        raise BusyError(f"{folder.path} is being trained by another process; wait for it or stop it") from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # an empty lock file harms nobody
            if not folder.config.is_file():
                folder.lock.unlink(missing_ok=True)
                give_back(folder.path)
