"""Optuna's journal of a search: its draws and their outcomes, from which samplers learn.

The journal lies in the sweep folder and its lock dies with its process. So several processes may write, and any of them
may be killed.
"""

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, cast, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from danube_sweep.config.schema import Sampler
from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.config.validate.check_sweep import check_same_objectives
from danube_sweep.storage.locks import FolderLock
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.storage.run_folder import number_at
from danube_sweep.storage.sweep_folder import Entry
from danube_sweep.sweeping.propose.draws_ahead import LEARNING
from danube_sweep.sweeping.propose.samplers import build_sampler, evenly_spread, to_optuna
from danube_sweep.sweeping.propose.search_space import Distribution

TRIAL = "trial"
"""The attribute under which Optuna keeps a trial's hash."""
ABORTED = "aborted"
"""The attribute of a draw whose values a full disk or a kill has cut short: it does not count as drawn."""
INFORMED = "informed"
"""The attribute with the number of results that a draw has learned from; 0 for one that learned nothing."""
_MARK = "mark"
"""The attribute by which a process finds the draw that it has just added."""
OBJECTIVES = "objectives"
"""The attribute under which Optuna keeps metrics and goals."""


Values = Mapping[int, float]
"""A trial's validations: the thousandth of its steps, and the value."""
_RESULTS = (TrialState.COMPLETE, TrialState.PRUNED)


def _as_pruned(trial: FrozenTrial, values: Values) -> FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
        intermediate_values=dict(values),
    )


@final
class _Lock:
    # Optuna's own locks are files that stay behind when their process is killed. A writer that was killed, or whose
    # disk was full, may leave half a line, after which Optuna would refuse the whole journal: the next one removes it.
    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, FolderLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            if stream.read(1) not in (b"", b"\n"):
                stream.seek(0)
                stream.truncate(stream.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


@final
class OptunaJournal:
    """`objectives` are metrics and goals. Raises ConfigError for other objectives than those that it was begun with."""

    def __init__(self, path: Path, objectives: Sequence[tuple[str, str]]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        take_over(path.parent, Kind.sweep)
        backend = JournalFileBackend(str(path), lock_obj=cast(Any, _Lock(path)))
        self._metrics = [metric for metric, _ in objectives]
        self.study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sweep",
            directions=[optuna.study.StudyDirection[goal.upper()] for _, goal in objectives],
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        self._check_objectives([list(one) for one in objectives], path)

    def _check_objectives(self, objectives: list[list[str]], path: Path) -> None:
        known = self.study.user_attrs.get(OBJECTIVES)
        if known is None:
            self.study.set_user_attr(OBJECTIVES, objectives)
        else:
            check_same_objectives(objectives, known, path.parent)

    def draw(
        self,
        space: Mapping[str, Distribution],
        sampler: Sampler,
        seed: int,
        *,
        startup: int = 1,
        spread: bool = False,
        paused: Mapping[int, Values] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The number of a new draw and its values, by key.

        The first `startup` draws of a sampler that learns are spread evenly, and any with `spread`. `paused`: the
        validations so far of draws whose trials are paused, from which it learns too.
        """
        trials, wanted = self.study.get_trials(deepcopy=False), {key: to_optuna(one) for key, one in space.items()}
        resting = paused or {}
        drawn = sum(ABORTED not in one.user_attrs for one in trials)
        known = sum(one.state in _RESULTS or one.number in resting for one in trials)
        learns = sampler in LEARNING and drawn >= startup and known > 0 and not spread
        attributes: dict[str, Any] = {}
        if not learns and sampler is not Sampler.random:
            values = evenly_spread(space, seed, drawn)
        else:
            values, attributes = self._sampled(trials, resting, build_sampler(sampler, seed, drawn), wanted)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=values,
                distributions=wanted,
                system_attrs=attributes,
                user_attrs={INFORMED: known if learns else 0, _MARK: (mark := token_hex(8))},
            )
        )
        added = self.study.get_trials(deepcopy=False)
        return next(one.number for one in reversed(added) if one.user_attrs.get(_MARK) == mark), values

    def _sampled(
        self,
        trials: Sequence[FrozenTrial],
        paused: Mapping[int, Values],
        sampler: BaseSampler,
        wanted: dict[str, BaseDistribution],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values drawn by a sampler that takes paused trials for pruned ones, and the attributes it stores."""
        seen = optuna.create_study(directions=self.study.directions, sampler=sampler)
        seen.add_trials([_as_pruned(one, paused[one.number]) if one.number in paused else one for one in trials])
        drawn = seen.ask(wanted)
        frozen = seen.get_trials(deepcopy=False)[drawn.number]
        return dict(frozen.params), dict(frozen.system_attrs)

    def informed(self) -> tuple[int, list[int]]:
        """How many draws there were, and of those that a sampler learned for, how many results each was drawn from."""
        trials = [one for one in self.study.get_trials(deepcopy=False) if INFORMED in one.user_attrs]
        return len(trials), [known for one in trials if (known := int(one.user_attrs[INFORMED])) > 0]

    def name(self, draw: int, identity: str) -> None:
        """States which trial a draw has become."""
        self._trial(draw).set_user_attr(TRIAL, identity)

    def drop(self, draw: int) -> None:
        """Ends a draw that becomes no trial."""
        self.study.tell(draw, state=TrialState.FAIL, skip_if_finished=True)

    def values(self, draw: int, keys: Collection[str]) -> dict[str, Any] | None:
        """The values of a draw that became no trial yet; one that lacks some of `keys` is aborted, and None."""
        found: dict[str, Any] = self.study.get_trials(deepcopy=False)[draw].params
        if found.keys() >= set(keys):
            return found
        self._trial(draw).set_user_attr(ABORTED, True)
        self.drop(draw)
        return None

    def open_draws(self) -> dict[int, str | None]:
        """The draws that have not ended, each with the hash of its trial, or None if it is no trial yet."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: trial.user_attrs.get(TRIAL) for trial in running}

    def ended(self, entry: Entry, result: Mapping[str, Any] | None, validations: Values | None = None) -> None:
        """Records the result of a trial, and its validations if it is pruned. With None it stays open and will
        continue.
        """
        if result is None or not self._records(entry) or self._is_known(entry, result):
            return  # what was never drawn (a confirming trial) is at no point that a sampler knows
        state = str(result["state"])
        values = [value for metric in self._metrics if (value := number_at(result, metric)) is not None]
        if state not in COMPLETE or len(values) < len(self._metrics):
            self.study.tell(self._open(entry).number, state=TrialState.FAIL, skip_if_finished=True)
        elif state == State.pruned.value:
            trial = self._open(entry)
            for step, value in sorted((validations or {}).items()):
                trial.report(value, step)
            self.study.tell(self._open(entry).number, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self.study.tell(self._open(entry).number, values, skip_if_finished=True)

    def _is_known(self, entry: Entry, result: Mapping[str, Any]) -> bool:
        # Another process may have said it already; a second record of it would count twice.
        said = {State.finished.value: TrialState.COMPLETE, State.pruned.value: TrialState.PRUNED}
        newest = next((one for one in reversed(self._records(entry))), None)
        return newest is not None and newest.state is said.get(str(result["state"]), TrialState.FAIL)

    def _records(self, entry: Entry) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [one for one in trials if one.number == entry.draw or one.user_attrs.get(TRIAL) == entry.hash]

    def _open(self, entry: Entry) -> Trial:
        # The trial's own record; one that was closed by a failure and is run again gets a second one.
        found = self._records(entry)
        if found[-1].state is TrialState.RUNNING or found[-1].state is TrialState.COMPLETE:
            return self._trial(found[-1].number)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=found[-1].params,
                distributions=found[-1].distributions,
                user_attrs={TRIAL: entry.hash},
            )
        )
        return self._open(entry)

    def _trial(self, number: int) -> Trial:
        frozen: FrozenTrial = self.study.get_trials(deepcopy=False)[number]
        return Trial(self.study, frozen._trial_id)
