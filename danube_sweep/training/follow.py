"""The work of every rank except the leading one: it builds the trials that the leader begins, and trains its share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

from danube_sweep.config.schema import Config, NoTracking
from danube_sweep.config.schema.states import State
from danube_sweep.errors import OutOfMemory, TrialFailed
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.tracking import open_tracker
from danube_sweep.training import trained_weights
from danube_sweep.training.failure import failure
from danube_sweep.training.journal import Surroundings
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.out_of_memory import memory_errors
from danube_sweep.training.ranks import Ranks
from danube_sweep.training.setup import PackBuilder, Stopwatch
from danube_sweep.training.step_plan import StepPlan
from danube_sweep.training.trial import ActiveTrial


def follow(ranks: Ranks, stopping: Callable[[], bool] = lambda: False) -> None:
    """Trains this rank's share of the leader's trials, until no trial is left. Writes nothing except caches.

    `stopping` is called at every border, and its answer does not count. Raises RankLost, and errors such as OutOfMemory
    that happened on this rank alone.
    """
    _Following(ranks, stopping).run()


@contextmanager
def agreed(ranks: Ranks) -> Iterator[None]:
    """An error inside on any rank is raised on all ranks. On the others it is an OutOfMemory or a TrialFailed."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if ranks.count > 1:
        told = None if failed is None else failure(failed) or {"state": State.invalid.value, "error": str(failed)}
        others = [(rank, one) for rank, one in enumerate(ranks.each(told)) if one is not None]
        if failed is None and others:
            rank, first = others[0]
            kind = OutOfMemory if first["state"] == State.oom.value else TrialFailed
            raise kind(f"on rank {rank}: {first['error']}")
    if failed is not None:
        raise failed


@final
class _Quiet:
    """The screen of a trial whose leader has the terminal."""

    def start(self, name: str, total_steps: int, done_steps: int = 0) -> None: ...
    def update(self, name: str, step: int, *, loss: float, tokens_per_s: float) -> None: ...
    def alive(self) -> None: ...
    def note(self, text: str) -> None: ...
    def tell(self, about: str, lines: Sequence[str]) -> None: ...
    def log_to(self, path: Path) -> None: ...
    def record(self, text: str) -> None: ...


@final
class _Following:
    """The pack of a rank that follows: it decides nothing at the borders of `PackModule`."""

    def __init__(self, ranks: Ranks, stopping: Callable[[], bool]) -> None:
        self._ranks, self._stopping = ranks, stopping
        self._builder = PackBuilder(ranks)
        self._training: list[ActiveTrial] = []

    def run(self) -> None:
        trials = self._entering()
        if trials:
            pack = self._builder.pack
            with memory_errors(self._configs), self._ranks.connected():
                fit(PackModule(pack, trials, self, self._ranks), accelerator=pack.backbone.device.type)

    def leaves(self, trial: ActiveTrial) -> bool:
        self._stopping()
        return False

    def left(self, trial: ActiveTrial) -> list[ActiveTrial]:
        self._training.remove(trial)
        if self._builder.pack.backbone.sharded:
            self._help(trial)
        return self._entering()

    def _help(self, trial: ActiveTrial) -> None:
        # The leader evaluates its best weights, and passes through the backbone with all ranks.
        while (asked := self._ranks.said(None)) is not None:
            best, part = asked
            trained_weights.load_trained(best, trial.model)
            self._builder.pack.evaluate([trial], part, self._ranks)

    def _configs(self) -> list[Config]:
        return [trial.config for trial in self._training]

    def _entering(self) -> list[ActiveTrial]:
        trials: list[ActiveTrial] = []
        while (told := self._ranks.said(None)) is not None:
            try:
                trials.append(self._begin(*told))
            except Exception:  # agreed: the leading rank knows it and reports it
                continue
        return trials

    def _begin(self, config: Config, path: Path) -> ActiveTrial:
        with agreed(self._ranks), memory_errors(self._configs, config):
            prepared, model = self._builder.build(config, Stopwatch())
        with agreed(self._ranks):
            tracker = open_tracker(
                NoTracking(), run_id="", run_name="", folder=path, resolved={}, say=lambda _line: None
            )
            plan = StepPlan(config, prepared.parts["train"], prepared.pad_id, self._ranks)
            where = Surroundings(RunFolder(path), tracker, _Quiet(), path.name)
            trial = ActiveTrial(model, prepared.parts, plan, where)
        self._training.append(trial)
        return trial
