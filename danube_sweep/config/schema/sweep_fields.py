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


class Lock(Enum):
    auto = "auto"
    flock = "flock"
    lease = "lease"


@dataclass
class Sweep:
    metric: Any = setting(
        "metric of the ranking, such as validation/log_loss or measured/peak_memory_bytes; a list for several; the "
        "default is the metric that chooses a trial's best step",
        "validation/log_loss",
    )
    goal: Any = setting(
        "minimize or maximize; a list for several metrics; null uses the known direction of the metric", None
    )
    trials: int | None = setting("search only: number of trials; null continues until stopped or sweep.max_trials", 20)
    sampler: Sampler = setting("search only: sampler: tpe, random, qmc, grid, gp or cmaes", Sampler.tpe)
    sampler_seed: int = setting("search only: seed of the sampler", 0)
    max_trials: int = setting("largest number of trials of a sweep, checked before a grid is expanded", 1000)
    skip_invalid: bool = setting("leave out invalid cells instead of refusing the sweep", False)
    retry: list[str] = setting("end states to run again when a sweep is resumed, for example [failed,oom] or [all]", [])
    slots: int | None = setting(
        "trials or packs at a time, each in its own process; null means one per GPU, or one on a CPU", None
    )
    workers: int = setting(
        "processes on all machines that are expected to share the sweep: a pack leaves the others their part", 1
    )
    lock: Lock = setting(
        "how workers hold trials: auto adds leases to the kernel's locks where sweep.workers is above 1; flock uses "
        "the locks alone, which all machines must see; lease uses leases alone, for file systems without locks",
        Lock.auto,
    )
    lease_s: float = setting(
        "seconds without a sign of life after which another worker takes over a trial that is held by a lease", 60.0
    )
    draws_ahead: Any = setting(
        "search only, for tpe, gp and cmaes: trials without a result that a pack may draw; auto: a quarter of the "
        "trials at the start, then half as many as there are results",
        "auto",
    )
    pack: Any = setting(
        "trials of a slot that train together over one backbone: auto takes as many as are predicted to fit and to "
        "gain, 8 takes up to eight, 1 trains one at a time",
        "auto",
    )
    stagger_s: float = setting("seconds between the starts of the slots' first trials", 2.0)
    deadline_h: float | None = setting(
        "hours until the sweep checkpoints its running trials and ranks; null for no deadline", None
    )
    timeout_h: float | None = setting("hours that a trial may take; null for no limit", None)
    stall_s: float | None = setting("seconds without a step after which a trial counts as hung; null for never", 1800.0)
    grace_s: float = setting("seconds that a trial has to write a checkpoint when it is stopped", 30.0)
    disk_wait_s: float = setting(
        "seconds to wait for room on a full disk once nothing trains any more; then the sweep exits 1, to be resumed",
        60.0,
    )
    on_oom: OnOom = setting("record an out-of-memory trial, or retry it with half the micro-batch", OnOom.record)
    on_misfit: OnMisfit = setting(
        "for trials predicted not to fit the device: error refuses the sweep, skip leaves them out, shrink lowers the "
        "micro-batch at the same effective batch",
        OnMisfit.error,
    )
    score_test: bool = setting("score the winner on the test part at the end, if there is one", True)
    baseline: Baseline = setting(
        "tfidf trains two linear models on the trials' split in seconds and ranks them beside the trials: one on "
        "TF-IDF "
        "and lengths, one on lengths alone; none leaves them out. Word labels and language modelling have none",
        Baseline.tfidf,
    )
    confirm: Confirm = setting(
        "auto trains rows tied with the best again with fresh seeds, after the sweep's own trials; none only offers "
        "this",
        Confirm.none,
    )
    budget: float | None = setting(
        "with a pruner that pauses: limit of the steps of all trials, as a share of the steps of training every trial "
        "to its end; null continues paused trials while one may still win",
        None,
    )
    budget_h: float | None = setting(
        "the same limit in hours of training, those before a resume included, converted at the rate so far",
        None,
    )
    confirm_share: float = setting(
        "limit of the steps for confirming, as a share of the steps of the sweep's trials", 0.2
    )
    dry_run: bool = setting("show the trials and stop; --dry-run is the short form", False)


@dataclass
class Pruner:
    """Pauses or ends running trials early, by their validations so far."""


@dataclass
class NoPruner(Pruner):
    """Every trial runs to its end."""


@dataclass
class Asha(Pruner):
    """Successive halving without waiting (arXiv:1810.05934): the best 1/reduction continue, others pause."""

    rung_share: float = setting("share of a trial's steps from one rung to the next", 0.25)
    min_validations: int = setting("validations before the first rung", 2)
    reduction: int = setting("a share of 1/reduction continues by rank", 4)


@dataclass
class Hyperband(Pruner):
    """Successive halving from several first rungs (arXiv:1603.06560), for misleading early validations."""

    rung_share: float = setting("share of a trial's steps from one rung to the next", 0.25)
    min_validations: int = setting("validations before the first rung of the earliest bracket", 2)
    reduction: int = setting("a share of 1/reduction continues by rank", 4)


@dataclass
class Median(Pruner):
    """Pauses a trial whose best validation is worse than the median of the others' at the same share of their steps."""

    from_share: float = setting("share of a trial's steps before which nothing is judged", 0.25)
    startup_trials: int = setting("other trials that must have come as far", 4)
    min_validations: int = setting("validations that every trial gets", 2)


@dataclass
class Patient(Pruner):
    """Early stopping: a trial that stopped improving has finished, whatever the others do."""

    patience: int = setting("validations without improvement that are allowed", 1)
    min_delta: float = setting("smallest change that counts as an improvement", 0.0)


@dataclass
class WandbHyperband(Pruner):
    """W&B's early_terminate: hyperband, computed as W&B does; a trial that it ends is not promoted again."""

    min_iter: int | None = setting("validations before the first band; or give max_iter and s", None)
    max_iter: int | None = setting("validations of a whole trial, from which the bands are counted down", None)
    s: int | None = setting("bands below max_iter", None)
    eta: float = setting("a share of 1/eta continues past a band; bands are that factor apart", 3.0)
    strict: bool = setting("compare the value at the band instead of the best one so far", False)
