"""Trials in, run folders with results out: build, fit, evaluate, save. Alone or as a pack over one backbone."""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

from lightning.pytorch.utilities.exceptions import SIGTERMException

from danube_sweep.config.schema import Config, WandbTracking
from danube_sweep.config.schema.states import COMPLETE, MICRO_BATCH, State
from danube_sweep.config.stored import plain_config
from danube_sweep.errors import DanubeSweepError, DiskError, Dismissed, Interrupted, PackOutOfMemory, Paused
from danube_sweep.storage.checkpoint_places import remove_checkpoints
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Screen
from danube_sweep.tracking import given_out, open_tracker
from danube_sweep.tracking.reported import reported
from danube_sweep.training import finish, resume, trained_weights
from danube_sweep.training.assemble import AssembledModel
from danube_sweep.training.failure import failure
from danube_sweep.training.follow import agreed
from danube_sweep.training.general_ability import compared, score
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.out_of_memory import is_process_error, memory_errors
from danube_sweep.training.prepare import Prepared
from danube_sweep.training.ranks import ALONE, Ranks
from danube_sweep.training.setup import Entrant, PackBuilder, Taken, activate, take, tracker_of
from danube_sweep.training.signals import StopRequest
from danube_sweep.training.trial import ActiveTrial, Judge, Phase

__all__ = ["Door", "Entrant", "run_pack", "run_trial"]


class Door(Protocol):
    """The questions and reports of a pack while it trains."""

    def next(self) -> Entrant | None:
        """Another trial of the same pack for a free place. Called when a trial has left, until it returns None."""

    def dismisses(self, entrant: Entrant) -> str | None:
        """A reason if the trial is to leave now: it checkpoints, and has no result. Asked at every border."""

    def left(self, entrant: Entrant, error: BaseException | None) -> None:
        """The trial has left, and its folder is whole and free. `error` is None after a result.

        Interrupted and Dismissed leave a checkpoint, Paused a paused.json too. A trial that could not begin leaves
        nothing, and all others leave a result with their state.
        """


def run_trial(
    config: Config,
    path: Path,
    terminal: Screen,
    *,
    stop: StopRequest | None = None,
    judge: Judge | None = None,
    lock_wait_s: float = 1.0,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains one trial in the folder `path`, resumes an unfinished one, or reports a finished one. Returns its
    result.json.

    `judge` may end or pause it. With `ranks` this is the leading one, and the others call `follow`.
    Raises UserError before anything is written, Interrupted and Paused after a checkpoint, and TrialFailed after a
    result.json with the trial's state.
    """
    alone = _Alone()
    entrant = Entrant(config, path, terminal, judge)
    with ExitStack() as stack:
        requested = stop or stack.enter_context(StopRequest())
        pack_run = _PackRun(alone, requested, lock_wait_s, ranks)
        pack_run.run([entrant])
        if alone.error is not None:
            raise alone.error
        assert pack_run.last_result is not None
        if requested():
            raise Interrupted(f"this trial had just finished: {path}", requested.signal_number or 2)
        return pack_run.last_result


def run_pack(
    entrants: Sequence[Entrant],
    door: Door,
    *,
    stop: StopRequest | None = None,
    lock_wait_s: float = 1.0,
    ranks: Ranks = ALONE,
) -> None:
    """Trains trials together, in their folders, and those that `door` sends after them. Reports each end to `door`.

    All must have one `pack_plan.pack_key`. With `ranks` this is the leading one, and the others call `follow`.
    Raises PackOutOfMemory when memory does not suffice for several of them, and Interrupted once all have checkpointed
    after a stop was requested.
    """
    with ExitStack() as stack:
        requested = stop or stack.enter_context(StopRequest())
        _PackRun(door, requested, lock_wait_s, ranks).run(entrants)
        if requested():
            raise Interrupted("this pack has stopped", requested.signal_number or 2)


def publish_result(config: Config, folder: RunFolder) -> None:
    """Sends the result in a run's folder, its predictions and its product to the trial's tracker, and ends its run."""
    result = folder.read_result() or {}
    tracker = open_tracker(
        config.tracking,
        run_id=result["trial"],
        run_name=config.name or folder.path.name,
        folder=folder.path,
        resolved=plain_config(config),
        say=print,
        step=result.get("steps", 0),
    )
    tracker.publish(folder.predictions, folder.path / trained_weights.folder_name(config.lora))
    tracker.summary({"state": result["state"], **reported(result)})
    tracker.finish(0)


@final
class _Alone:
    """The door of a trial of its own."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def next(self) -> Entrant | None:
        return None

    def dismisses(self, _entrant: Entrant) -> str | None:
        return None

    def left(self, _entrant: Entrant, error: BaseException | None) -> None:
        self.error = error


@dataclass(frozen=True)
class _Begun:
    """A trial that has begun and has not ended, with the data for its end. Its folder is held."""

    taken: Taken
    trial: ActiveTrial
    prepared: Prepared
    began_s: float = field(default_factory=time.monotonic)


@final
class _PackRun:
    """A pack from its first trial to its last: takes their folders, trains them, ends them, reports to the door.

    It alone knows which folders are held, and it makes the decisions at the borders of `PackModule`.
    """

    def __init__(self, door: Door, stopping: Callable[[], bool], lock_wait_s: float, ranks: Ranks) -> None:
        self._door, self._stopping, self._lock_wait_s = door, stopping, lock_wait_s
        self._ranks = ranks
        self._builder = PackBuilder(ranks)
        self._begun: dict[int, _Begun] = {}
        self.last_result: dict[str, Any] | None = None

    def run(self, entrants: Sequence[Entrant]) -> None:
        """Returns when every trial has left."""
        trials = self._entering(entrants)
        self._ranks.said(None)  # no more for now
        if not trials:
            return
        try:
            self._train(trials)
        except SIGTERMException:  # Lightning's handler saw the signal too, in the first step, before ours was put back
            for begun in [*self._begun.values()]:
                self._end(begun, Phase.stopped)
        except BaseException as error:
            self._end_badly(error)
            if not isinstance(error, Exception) or len(self._begun) > 1 or isinstance(error, Interrupted):
                raise
        finally:
            for begun in self._begun.values():
                begun.taken.release()

    def _train(self, trials: Sequence[ActiveTrial]) -> None:
        pack = self._builder.pack
        with memory_errors(self._training), self._ranks.connected():
            fit(PackModule(pack, trials, self, self._ranks), accelerator=pack.backbone.device.type)

    def _training(self) -> list[Config]:
        return [begun.trial.config for begun in self._begun.values()]

    # ----------------------------------------------------------------------------------------- coming and going

    def leaves(self, trial: ActiveTrial) -> bool:
        """Whether a stop was requested, of all or of this trial's run on its W&B page, or the trial is dismissed."""
        trial.dismissal = self._door.dismisses(self._begun[id(trial)].taken.entrant)
        return self._stopping() or trial.where.tracker.stopped or trial.dismissal is not None

    def left(self, trial: ActiveTrial) -> list[ActiveTrial]:
        """Concludes a trial that does not train any more; returns those that the door sends for the free places."""
        self._end(self._begun[id(trial)], trial.phase)
        if self._builder.pack.backbone.sharded:
            self._ranks.said(None)  # no more evaluations
        entering: list[ActiveTrial] = []
        while not self._stopping() and (entrant := self._door.next()) is not None:
            entering += self._entering([entrant])
        self._ranks.said(None)
        return entering

    def _entering(self, entrants: Sequence[Entrant]) -> list[ActiveTrial]:
        """The entrants that train. The others are reported to the door."""
        trials = []
        for entrant in entrants:
            try:
                taken = take(entrant, self._lock_wait_s)
            except Exception as error:
                self._door.left(entrant, error)
                continue
            trials += self._begin(taken)
        return trials

    def _begin(self, taken: Taken) -> list[ActiveTrial]:
        error: BaseException | None = None
        try:
            if taken.stored is None:
                prepared, model = self._build(taken)
                with agreed(self._ranks):
                    trial = activate(taken, prepared, model, self._ranks)
                self._begun[id(trial)] = _Begun(taken, trial, prepared)
                return [trial]
            _report_again(taken, taken.stored)
            self.last_result = taken.stored
        except Exception as raised:
            error = raised
        taken.release()
        self._door.left(taken.entrant, error)
        return []

    def _build(self, taken: Taken) -> tuple[Prepared, AssembledModel]:
        self._ranks.said((taken.config, taken.folder.path))
        with agreed(self._ranks), memory_errors(self._training, taken.config):
            return self._builder.build(taken.config, taken.watch)

    # ------------------------------------------------------------------------------------------------- the ends

    def _end(self, begun: _Begun, phase: Phase) -> None:
        """Ends one trial with its weights and result, or with the reason for having none; then reports to the door."""
        trial, error = begun.trial, begun.trial.error
        result = _begun_result(begun)
        error = error or self._why_stopped(trial) if phase in (Phase.stopped, Phase.failed) else None
        if error is None:
            try:
                with memory_errors(self._training, trial.config):
                    found = finish.finish(trial, begun.prepared, self._evaluate)
                    result |= found | self._benchmark(begun)
                error = _paused(trial) if phase is Phase.paused else None
            except Exception as raised:
                # Nobody's fault: its checkpoint is there, and it ends when it is alone.
                if isinstance(raised, PackOutOfMemory) or (is_process_error(raised) and len(self._begun) > 1):
                    raise
                error = raised
        self._conclude(begun, result, error)

    def _benchmark(self, begun: _Begun) -> dict[str, Any]:
        """The result's field of trainer.benchmark, for a trial that trained to its end and has its best weights."""
        trial, before = begun.trial, self._builder.before(begun.prepared)
        if not before or trial.phase is not Phase.finished:
            return {}
        with begun.taken.watch.phase("benchmark"):
            on_backbone = self._builder.pack.alone(trial)
            after = score(trial.config, on_backbone, begun.prepared.tokenizer, trial.where.terminal.alive)
        return {"benchmark": compared(before, after)}

    def _evaluate(self, trial: ActiveTrial, part: str) -> dict[str, float]:
        pack, ranks = self._builder.pack, ALONE
        if pack.backbone.sharded:  # nobody passes through it alone
            ranks = self._ranks
            ranks.said((resume.best_checkpoint(trial), part))
        with ranks.connected():
            (evaluation,) = pack.evaluate([trial], part, ranks)
        return evaluation.metrics

    def _why_stopped(self, trial: ActiveTrial) -> DanubeSweepError:
        step, total, place = trial.done.step, trial.plan.total_steps, trial.where.folder.path
        if trial.dismissal is not None:
            return Dismissed(trial.dismissal)
        number = getattr(self._stopping, "signal_number", None) or 2
        return Interrupted(f"at step {step} of {total}; go on with: danube-sweep resume {place}", number)

    def _end_badly(self, error: BaseException) -> None:
        """Handles the error that ended the fit. One trial alone ends by it. Of several none is blamed, and the process
        ends.
        """
        for begun in [*self._begun.values()]:
            several = len(self._begun) > 1
            if several or not isinstance(error, Exception):
                begun.trial.where.tracker.finish(1)
            else:
                self._conclude(begun, _begun_result(begun), error)

    def _conclude(self, begun: _Begun, result: dict[str, Any], error: BaseException | None) -> None:
        trial = begun.trial
        if error is not None:
            result |= failure(error)
            if not isinstance(error, DanubeSweepError):
                with suppress(DiskError):
                    trial.where.terminal.record("".join(traceback.format_exception(error)))
        seconds = {**begun.taken.watch.seconds, "fit": time.monotonic() - begun.began_s}
        measured = finish.measured(trial, seconds)
        code = 0 if error is None else getattr(error, "exit_code", 1)
        try:
            _write(trial, result, measured, code)
            self.last_result = result
        except Exception as raised:  # a full disk
            error = error or raised
        del self._begun[id(trial)]
        begun.taken.release()
        self._door.left(begun.taken.entrant, error)


def _paused(trial: ActiveTrial) -> Paused:
    return Paused(f"paused at step {trial.done.step} of {trial.plan.total_steps}: others of the sweep stand higher")


def _begun_result(begun: _Begun) -> dict[str, Any]:
    config, asked = begun.trial.config, begun.taken.entrant.config
    result: dict[str, Any] = {"trial": begun.taken.identity, "name": config.name, "seed": config.seed}
    result["predicted"] = begun.trial.where.predicted
    if config is not asked:
        result["adjusted"] = {MICRO_BATCH: config.trainer.micro_batch}
    return result


def _write(trial: ActiveTrial, result: dict[str, Any], measured: dict[str, Any], exit_code: int) -> None:
    # Without a state the run was interrupted, or never began: it has no result and keeps its checkpoints, as does one
    # that is paused.
    folder, tracker = trial.where.folder, trial.where.tracker
    try:
        if "state" in result:
            result["measured"] = measured
            write_json(folder.paused if result["state"] == State.paused.value else folder.result, result)
            if result["state"] in COMPLETE:
                remove_checkpoints(folder)
                tracker.publish(folder.predictions, folder.path / trained_weights.folder_name(trial.config.lora))
            tracker.summary({"state": result["state"], **_reason(result), **reported(result)})
    finally:
        tracker.finish(exit_code)


def _report_again(taken: Taken, result: dict[str, Any]) -> None:
    # A W&B agent waits for the run that it gave out, though the trial has been trained before.
    if not (given_out() and isinstance(taken.entrant.config.tracking, WandbTracking)):
        return
    tracker = tracker_of(taken)
    if result["validation"]:
        tracker.log(result["best_step"], reported(result))
    tracker.publish(taken.folder.predictions, None)  # what it trained is an artifact of the run that trained it
    tracker.summary({"state": result["state"], **reported(result)})
    tracker.finish(0)


def _reason(result: dict[str, Any]) -> dict[str, str]:
    return {"error": result["error"]} if "error" in result else {}
