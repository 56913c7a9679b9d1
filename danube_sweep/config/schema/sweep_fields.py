"""A sweep: what it draws, how its trials are run, ranked and stopped early. Settings of the sweep, not of a trial."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from danube_sweep.config.schema.fields import setting


class Sampler(Enum):
    tpe = "tpe"
    random = "random"
    qmc = "qmc"
    grid = "grid"
    gp = "gp"
    cmaes = "cmaes"


class OnOom(Enum):
    record = "record"
    retry = "retry"


class OnMisfit(Enum):
    error = "error"
    skip = "skip"
    shrink = "shrink"


class Baseline(Enum):
    none = "none"
    tfidf = "tfidf"


class Confirm(Enum):
    none = "none"
    auto = "auto"


@dataclass
class Sweep:
    metric: Any = setting(
        "what is ranked: a result like validation/log_loss or measured/peak_memory_bytes; a list for several; by "
        "default what chooses a trial's best step",
        "validation/log_loss",
    )
    goal: Any = setting(
        "minimize or maximize, a list for several metrics; null: what the metric is known to want", None
    )
    trials: int | None = setting("of a search: trials to draw; null: until stopped or sweep.max_trials", 20)
    sampler: Sampler = setting("of a search: how it draws: tpe, random, qmc, grid, gp, cmaes", Sampler.tpe)
    sampler_seed: int = setting("of a search: its seed", 0)
    max_trials: int = setting("the most trials a sweep may have, checked before anything is expanded", 1000)
    skip_invalid: bool = setting("leave out cells with a mistake instead of refusing the sweep", False)
    retry: list[str] = setting("end states to run again when a sweep goes on: [failed,oom], or [all]", [])
    slots: int | None = setting("trials at a time, each in its process; null: one per GPU, one on a CPU", None)
    pack: Any = setting(
        "trials of a slot that train together over one backbone: auto takes as many as are predicted to fit and to "
        "gain from it, 8 takes up to eight, 1 trains one at a time",
        "auto",
    )
    stagger_s: float = setting("seconds between the starts of the first trials of the slots", 2.0)
    deadline_h: float | None = setting("hours until the sweep checkpoints what runs and ranks; null for none", None)
    timeout_h: float | None = setting("hours a trial may take; null for no limit", None)
    stall_s: float | None = setting("seconds without a step after which a trial counts as hung; null never", 1800.0)
    grace_s: float = setting("seconds a trial gets to checkpoint once it is asked to stop", 30.0)
    disk_wait_s: float = setting(
        "seconds to wait for room on a full disk once nothing trains any more; then the sweep exits 1, to be resumed",
        60.0,
    )
    on_oom: OnOom = setting("record an out-of-memory trial, or retry it with half the micro-batch", OnOom.record)
    on_misfit: OnMisfit = setting(
        "trials predicted not to fit the device: error refuses the sweep, skip leaves them out, shrink lowers the "
        "micro-batch at the same effective batch",
        OnMisfit.error,
    )
    score_test: bool = setting("at the end, score the winner on the test part, if there is one", True)
    baseline: Baseline = setting(
        "tfidf trains two linear models on the trials' split in seconds, one on TF-IDF and lengths and one on lengths "
        "alone, and ranks them beside the trials; none leaves them out. Words and language modelling have none",
        Baseline.tfidf,
    )
    confirm: Confirm = setting(
        "auto trains rows that cannot be told from the best again with fresh seeds, once the sweep's own trials have "
        "ended; none trains what was asked for and offers it",
        Confirm.none,
    )
    confirm_share: float = setting("steps that confirming may take, as a share of those of the sweep's trials", 0.2)
    dry_run: bool = setting("show the trials and stop; --dry-run is short for it", False)


@dataclass
class Pruner:
    """Which running trials end early, by their validations so far."""


@dataclass
class NoPruner(Pruner):
    """Every trial runs to its end."""


@dataclass
class Asha(Pruner):
    """Successive halving without waiting (arXiv:1810.05934): at each rung only the best 1/reduction go on."""

    min_validations: int = setting("validations before the first rung", 1)
    reduction: int = setting("share that goes on is 1/reduction; rungs are that factor apart", 3)


@dataclass
class Hyperband(Pruner):
    """Successive halving from several first rungs (arXiv:1603.06560), for when early validations mislead."""

    min_validations: int = setting("validations before the first rung of the hastiest bracket", 1)
    max_validations: int | None = setting("validations of a whole trial; null asks the first one that ends", None)
    reduction: int = setting("share that goes on is 1/reduction; rungs are that factor apart", 3)


@dataclass
class Median(Pruner):
    """Ends a trial whose best validation is worse than the median of the others' at the same point."""

    startup_trials: int = setting("trials that must have ended first", 4)
    min_validations: int = setting("validations that every trial gets", 1)


@dataclass
class Patient(Pruner):
    """Ends a trial that stopped improving, whatever the others do."""

    patience: int = setting("validations without improvement that are forgiven", 1)
    min_delta: float = setting("what counts as improvement", 0.0)
