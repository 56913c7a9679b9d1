"""Whether a trial ends early: ASHA, hyperband, the median rule and patience decide here, at each validation."""

from typing import final

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, Trial, TrialState

from danube_sweep.config.schema import Asha, Hyperband, Median, NoPruner, Patient, Pruner


def ends_here(trial: Trial, known: FrozenTrial, number: int, score: float) -> bool:
    """Whether its study's pruner ends a trial at validation `number`, which scored `score`.

    `known` is what the journal holds of the trial. A validation that is in it already is not counted again.
    """
    if known.state is TrialState.RUNNING and number not in known.intermediate_values:
        trial.report(score, number)
    return bool(trial.should_prune())


def build_pruner(pruner: Pruner) -> BasePruner:
    """Optuna's pruner; its resource is the number of validations."""
    match pruner:
        case Asha(min_validations=least, reduction=reduction):
            return optuna.pruners.SuccessiveHalvingPruner(least, reduction, 0)
        case Hyperband(min_validations=least, max_validations=most, reduction=reduction):
            return optuna.pruners.HyperbandPruner(least, "auto" if most is None else most, reduction)
        case Median(startup_trials=startup, min_validations=least):
            return optuna.pruners.MedianPruner(startup, least)
        case Patient(patience=patience, min_delta=delta):
            return _Patience(patience, delta)
        case NoPruner():
            return optuna.pruners.NopPruner()
    raise TypeError(f"no pruner for {type(pruner).__name__}")


@final
class _Patience(BasePruner):
    # Optuna's own takes min_delta as how much worse is forgiven, and lets a trial that stands still go on.
    def __init__(self, patience: int, min_delta: float) -> None:
        self._late, self._min_delta = patience + 1, min_delta

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        sign = 1 if study.direction is optuna.study.StudyDirection.MINIMIZE else -1
        scores = [sign * value for _, value in sorted(trial.intermediate_values.items())]
        before, after = scores[: -self._late], scores[-self._late :]
        return bool(before) and min(after) >= min(before) - self._min_delta
