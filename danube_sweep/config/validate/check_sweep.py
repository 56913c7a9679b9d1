"""The checks of a sweep's settings; past them they are trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danube_sweep.config.require import require
from danube_sweep.config.schema import (
    HIGHER_IS_BETTER,
    Asha,
    Config,
    Confirm,
    Hyperband,
    Median,
    NoPruner,
    Patient,
    Pruner,
    Sampler,
    Sweep,
    WandbHyperband,
)
from danube_sweep.config.schema.states import COMPLETE, State
from danube_sweep.config.validate import AUTO

RETRIABLE = tuple(
    state.value for state in State if state.value not in (*COMPLETE, State.preempted.value, State.paused.value)
)
"""The states that `--retry` accepts; interrupted, preempted and paused trials continue by themselves."""

MEASURED = (
    "measured/peak_memory_bytes",
    "predicted/peak_memory_bytes",
    "predicted/seconds_per_step",
    "measured/tokens_per_s",
    "measured/seconds/train",
    "parameters/trainable",
)
"""Results that can be ranked by, besides validation metrics."""


def objectives(sweep: Sweep) -> list[tuple[str, str]]:
    """Metric and goal of every objective; the first one ranks."""
    metrics = sweep.metric if isinstance(sweep.metric, list) else [sweep.metric]
    goals = sweep.goal if isinstance(sweep.goal, list) else [sweep.goal] * len(metrics)
    pairs = zip(map(str, metrics), goals, strict=True)
    return [(metric, _known_goal(metric) if goal is None else str(goal)) for metric, goal in pairs]


def _known_goal(metric: str) -> str:
    return "maximize" if metric.rpartition("/")[2] in (*HIGHER_IS_BETTER, "tokens_per_s") else "minimize"


def validate_sweep(sweep: Sweep, pruner: Pruner) -> None:
    """Raises ConfigError for a setting out of range or a combination that cannot work."""
    metrics = sweep.metric if isinstance(sweep.metric, list) else [sweep.metric]
    goals = sweep.goal if isinstance(sweep.goal, list) else [sweep.goal]
    require(
        all(isinstance(metric, str) for metric in metrics),
        f"sweep.metric takes the name of a metric or a list of names, got {sweep.metric}",
    )
    require(metrics != [], "sweep.metric needs at least one metric, got []; the default is validation/log_loss")
    require(
        len(goals) in (1, len(metrics)) and (isinstance(sweep.metric, list) or not isinstance(sweep.goal, list)),
        f"sweep.goal needs one goal, or one for each of the {len(metrics)} metrics, got {sweep.goal}",
    )
    for metric in metrics:
        require(metrics.count(metric) == 1, f"sweep.metric: {metric} is listed twice; name it once")
    for goal in goals:
        require(
            goal in ("minimize", "maximize", None),
            f"sweep.goal must be minimize or maximize, got {goal}; null uses the metric's own direction",
        )
    _directed(metrics, goals)
    for name in ("trials", "slots", "workers"):
        value = getattr(sweep, name)
        require(value is None or value >= 1, f"sweep.{name} must be at least 1, got {value}")
    _pack(sweep.pack)
    ahead = sweep.draws_ahead
    require(
        ahead == AUTO or (isinstance(ahead, int) and not isinstance(ahead, bool) and ahead >= 1),
        f"sweep.draws_ahead must be auto or a whole number from 1, got {ahead}",
    )
    _unshared(metrics, sweep.pack)
    require(sweep.max_trials >= 1, f"sweep.max_trials must be at least 1, got {sweep.max_trials}")
    require(
        0 <= sweep.sampler_seed < 2**32,
        f"sweep.sampler_seed must be from 0 to {2**32 - 1}, got {sweep.sampler_seed}",
    )
    for name in ("deadline_h", "timeout_h", "stall_s", "budget_h"):
        value = getattr(sweep, name)
        require(value is None or value > 0, f"sweep.{name} must be above 0, got {value}; null for none")
    _seconds(sweep)
    require(sweep.confirm_share > 0, f"sweep.confirm_share must be above 0, got {sweep.confirm_share}")
    require(
        sweep.confirm is Confirm.none or len(metrics) == 1,
        f"sweep.confirm=auto takes one metric, got sweep.metric={metrics}; use sweep.confirm=none",
    )
    check_retry(sweep.retry)
    require(
        sweep.sampler is not Sampler.cmaes or len(metrics) == 1,
        f"sweep.sampler=cmaes takes one metric, got sweep.metric={metrics}; use tpe, gp, qmc or random",
    )
    _budget(sweep, pruner)
    _pruner(pruner)
    require(
        isinstance(pruner, NoPruner) or len(metrics) == 1,
        f"pruner: early stopping needs one metric, got sweep.metric={metrics}; use pruner=none",
    )
    require(
        isinstance(pruner, NoPruner) or str(metrics[0]).startswith("validation/"),
        f"pruner: early stopping needs a validation metric, got sweep.metric={metrics[0]}; use pruner=none",
    )


def _seconds(sweep: Sweep) -> None:
    for name in ("stagger_s", "grace_s", "disk_wait_s"):
        require(getattr(sweep, name) >= 0, f"sweep.{name} must be at least 0, got {getattr(sweep, name)}")
    require(
        2 <= sweep.lease_s < float("inf"),
        f"sweep.lease_s must be at least 2 seconds, got {sweep.lease_s:g}; a network file system needs about 60",
    )


def _directed(metrics: Sequence[Any], goals: list[Any]) -> None:
    # Benchmarks have accuracies and perplexities.
    for metric, goal in zip(metrics, goals * len(metrics) if len(goals) == 1 else goals, strict=True):
        require(
            goal is not None or not str(metric).startswith("benchmark/"),
            f"sweep.metric={metric} has no known direction; give sweep.goal=maximize, or minimize for a perplexity",
        )


def check_retry(states: Sequence[str]) -> None:
    """Raises ConfigError for a state that cannot be run again."""
    for state in states:
        require(
            state in (*RETRIABLE, "all"),
            f"sweep.retry={state}: this state cannot be run again; there are {', '.join(RETRIABLE)}, all",
        )


def check_metric(sweep: Sweep, config: Config) -> None:
    """Raises ConfigError for a metric that this trial does not report."""
    known = [*(f"validation/{name}" for name in config.head.metrics), *MEASURED]
    known += [f"benchmark/{task}/{kind}" for task in config.trainer.benchmark for kind in ("after", "change")]
    for metric, _ in objectives(sweep):
        require(
            metric in known, f"sweep.metric={metric}: no trial with this head reports it; there are {', '.join(known)}"
        )


def check_same_objectives(asked: Sequence[Sequence[str]], known: Sequence[Sequence[str]], folder: Path) -> None:
    """Raises ConfigError for other metrics and goals than those that the search in a folder was begun with."""
    said = ", ".join(f"{metric} ({goal})" for metric, goal in known)
    require(
        [*map(list, asked)] == [*map(list, known)],
        f"sweep.metric: the search in {folder} is about {said}; start a new folder",
    )


def check_validated(sweep: Sweep, pruner: Pruner, config: Config, *, searches: bool) -> None:
    """Raises ConfigError for a trial that no rows validate, where its validations would end or choose trials."""
    if config.data.validates:
        return
    way_out = "no rows validate (data.validation_fraction=0 or data.train_on_validation=true); give validation rows"
    require(isinstance(pruner, NoPruner), f"pruner: it ends trials by their validations, and {way_out} or pruner=none")
    for metric, _ in objectives(sweep):
        require(
            not (searches and metric.startswith("validation/")),
            f"sweep.metric={metric}: a search learns from it, and {way_out}",
        )


OF_THE_PACK = {
    "measured/peak_memory_bytes": "predicted/peak_memory_bytes",
    "measured/tokens_per_s": "predicted/seconds_per_step",
    "measured/seconds/train": "predicted/seconds_per_step",
}
"""What trials of a pack share, so that it does not tell them apart; and what does."""


def _unshared(metrics: Sequence[Any], pack: Any) -> None:
    for metric in metrics:
        require(
            pack == 1 or metric not in OF_THE_PACK,
            f"sweep.metric={metric}: the trials of a pack share it; use {OF_THE_PACK.get(metric)}, or sweep.pack=1",
        )


def _pack(pack: Any) -> None:
    number = isinstance(pack, int) and not isinstance(pack, bool)
    require(
        pack == AUTO or (number and pack >= 1),
        f"sweep.pack must be auto or a whole number from 1, got {pack}; 1 trains one trial at a time",
    )


def _budget(sweep: Sweep, pruner: Pruner) -> None:
    require(
        sweep.budget is None or 0 < sweep.budget <= 1,
        f"sweep.budget must be above 0 and at most 1, got {sweep.budget}; it is a share of all steps, null for none",
    )
    for name in ("budget", "budget_h"):
        value = getattr(sweep, name)
        require(
            value is None or isinstance(pruner, Asha | Hyperband | Median),
            f"sweep.{name}={value} needs a pruner that pauses trials: give pruner=asha, hyperband or median",
        )


def _pruner(pruner: Pruner) -> None:
    match pruner:
        case Asha() | Hyperband():
            _share("rung_share", pruner.rung_share)
            _at_least("min_validations", pruner.min_validations, 1)
            _at_least("reduction", pruner.reduction, 2)
        case Median():
            _share("from_share", pruner.from_share)
            _at_least("startup_trials", pruner.startup_trials, 1)
            _at_least("min_validations", pruner.min_validations, 0)
        case Patient():
            _at_least("patience", pruner.patience, 0)
            require(pruner.min_delta >= 0, f"pruner.min_delta must be at least 0, got {pruner.min_delta}")
        case WandbHyperband():
            _wandb_hyperband(pruner)
        case NoPruner():
            pass
        case _:
            raise TypeError(f"no check for {type(pruner).__name__}")


def _wandb_hyperband(pruner: WandbHyperband) -> None:
    require(
        (pruner.min_iter is None) != (pruner.max_iter is None),
        f"pruner: give either min_iter, or max_iter and s, got min_iter={pruner.min_iter} max_iter={pruner.max_iter}",
    )
    require(pruner.eta > 1, f"pruner.eta must be above 1, got {pruner.eta:g}")
    if pruner.min_iter is not None:
        _at_least("min_iter", pruner.min_iter, 1)
        return
    assert pruner.max_iter is not None
    require(pruner.s is not None, "pruner.s is missing: max_iter needs it, the number of bands below it")
    _at_least("s", pruner.s or 0, 1)
    require(
        pruner.max_iter / pruner.eta >= 1,
        f"pruner.max_iter={pruner.max_iter}: below eta={pruner.eta:g} no trial would ever be stopped; raise it",
    )


def _share(name: str, value: float) -> None:
    require(0 < value < 1, f"pruner.{name} must be above 0 and below 1, got {value:g}")


def _at_least(name: str, value: int, least: int) -> None:
    require(value >= least, f"pruner.{name} must be at least {least}, got {value}")
