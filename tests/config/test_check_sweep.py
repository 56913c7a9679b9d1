"""The settings of a sweep are checked before anything is written."""

import math
import re
from typing import Any

import pytest
from conftest import tiny_config

from danube_sweep.config.schema import (
    Asha,
    Hyperband,
    Median,
    NoPruner,
    Patient,
    Pruner,
    Sampler,
    Sweep,
    WandbHyperband,
)
from danube_sweep.config.validate.check_sweep import RETRIABLE, check_metric, check_retry, objectives, validate_sweep
from danube_sweep.errors import ConfigError
from danube_sweep.head.kinds.lm import LMHead

LOSS, MEMORY = "validation/log_loss", "predicted/peak_memory_bytes"


@pytest.mark.parametrize(
    ("changed", "pruner"),
    [
        ({}, NoPruner()),
        ({}, Asha()),
        ({"trials": None, "deadline_h": 0.5, "timeout_h": 1e-3, "stall_s": None, "grace_s": 0.0}, Hyperband(0.5, 1, 2)),
        ({"retry": ["all"], "stagger_s": 0.0}, Median(0.5, 1, 0)),
        ({"retry": list(RETRIABLE), "slots": 8}, Patient(0, 0.0)),
        ({"metric": [LOSS, MEMORY]}, NoPruner()),
        ({"metric": [LOSS, "validation/accuracy"], "goal": ["minimize", "maximize"]}, NoPruner()),
        ({"metric": [LOSS], "goal": ["minimize"]}, Asha()),
        ({"metric": MEMORY}, NoPruner()),
        ({"pack": "auto"}, NoPruner()),
        ({"pack": 1}, NoPruner()),
        ({"pack": 8}, Asha()),
        ({"sampler_seed": 2**32 - 1}, NoPruner()),
        ({"metric": [LOSS, MEMORY], "sampler": Sampler.tpe}, NoPruner()),
    ],
    ids=str,
)
def test_what_works_is_let_through(changed: dict[str, Any], pruner: Pruner) -> None:
    validate_sweep(Sweep(**changed), pruner)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metric": []}, "sweep.metric needs at least one metric, got []"),
        ({"metric": [{"a": 1}]}, "sweep.metric takes the name of a metric or a list of names, got [{'a': 1}]"),
        ({"goal": "best"}, "sweep.goal must be minimize or maximize, got best"),
        ({"goal": ["minimize"]}, "sweep.goal needs one goal"),
        ({"metric": [LOSS, MEMORY], "goal": ["minimize"] * 3}, "sweep.goal needs one goal, or one for each of the 2"),
        ({"metric": [LOSS, LOSS]}, "sweep.metric: validation/log_loss is listed twice"),
        ({"trials": 0}, "sweep.trials must be at least 1, got 0"),
        ({"slots": -1}, "sweep.slots must be at least 1, got -1"),
        ({"pack": 0}, "sweep.pack must be auto or a whole number from 1, got 0; 1 trains one trial at a time"),
        ({"pack": "many"}, "sweep.pack must be auto or a whole number from 1, got many"),
        ({"pack": 2.5}, "sweep.pack must be auto or a whole number from 1, got 2.5"),
        ({"pack": True}, "sweep.pack must be auto or a whole number from 1, got True"),
        ({"max_trials": 0}, "sweep.max_trials must be at least 1, got 0"),
        ({"sampler_seed": -1}, "sweep.sampler_seed must be from 0 to 4294967295, got -1"),
        ({"sampler_seed": 2**32}, "sweep.sampler_seed must be from 0 to 4294967295, got 4294967296"),
        ({"deadline_h": 0.0}, "sweep.deadline_h must be above 0, got 0.0; null for none"),
        ({"timeout_h": -1.0}, "sweep.timeout_h must be above 0"),
        ({"stall_s": math.nan}, "sweep.stall_s must be above 0, got nan"),
        ({"stagger_s": -1.0}, "sweep.stagger_s must be at least 0, got -1.0"),
        ({"grace_s": math.nan}, "sweep.grace_s must be at least 0, got nan"),
        (
            {"retry": ["nonsense"]},
            "sweep.retry=nonsense: this state cannot be run again; there are failed, oom, diverged",
        ),
        ({"retry": ["finished"]}, "sweep.retry=finished: this state cannot be run again"),
        ({"retry": ["preempted"]}, "sweep.retry=preempted: this state cannot be run again"),
        ({"metric": [LOSS, MEMORY], "sampler": Sampler.cmaes}, "sweep.sampler=cmaes takes one metric"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_sweep(Sweep(**changed), NoPruner())
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        (Asha(min_validations=0), "pruner.min_validations must be at least 1, got 0"),
        (Asha(reduction=1), "pruner.reduction must be at least 2, got 1"),
        (Hyperband(rung_share=1.0), "pruner.rung_share must be above 0 and below 1, got 1"),
        (Median(from_share=0.0), "pruner.from_share must be above 0 and below 1, got 0"),
        (WandbHyperband(), "give either min_iter, or max_iter and s, got min_iter=None max_iter=None"),
        (WandbHyperband(min_iter=1, eta=1.0), "pruner.eta must be above 1, got 1"),
        (WandbHyperband(max_iter=9), "pruner.s is missing"),
        (WandbHyperband(max_iter=2, s=1), "no trial would ever be stopped"),
        (Median(startup_trials=0), "pruner.startup_trials must be at least 1, got 0"),
        (Median(min_validations=-1), "pruner.min_validations must be at least 0, got -1"),
        (Patient(patience=-1), "pruner.patience must be at least 0, got -1"),
        (Patient(min_delta=-0.1), "pruner.min_delta must be at least 0, got -0.1"),
        (Patient(min_delta=math.nan), "pruner.min_delta must be at least 0, got nan"),
    ],
    ids=str,
)
def test_a_pruner_out_of_range_is_refused(pruner: Pruner, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_sweep(Sweep(), pruner)
    assert said in str(raised.value)


@pytest.mark.parametrize("pruner", [Asha(), Hyperband(), Median(), Patient()], ids=str)
def test_early_stopping_looks_at_one_validation_metric(pruner: Pruner) -> None:
    with pytest.raises(ConfigError, match="early stopping needs one metric"):
        validate_sweep(Sweep(metric=[LOSS, MEMORY]), pruner)
    with pytest.raises(ConfigError, match="early stopping needs a validation metric"):
        validate_sweep(Sweep(metric=MEMORY), pruner)


def test_one_goal_serves_all_metrics() -> None:
    assert objectives(Sweep()) == [(LOSS, "minimize")]
    assert objectives(Sweep(metric=[LOSS, MEMORY])) == [(LOSS, "minimize"), (MEMORY, "minimize")]
    both = Sweep(metric=[LOSS, "validation/accuracy"], goal=["minimize", "maximize"])
    assert objectives(both) == [(LOSS, "minimize"), ("validation/accuracy", "maximize")]


def test_every_state_that_can_be_run_again_can_be_asked_for() -> None:
    check_retry([*RETRIABLE, "all"])
    assert set(RETRIABLE) == {"failed", "oom", "diverged", "killed", "timeout", "disk_full", "invalid"}


def test_a_metric_must_be_one_that_the_trial_reports() -> None:
    config = tiny_config()
    for metric in ("validation/accuracy", "validation/ece", MEMORY, "parameters/trainable", "measured/seconds/train"):
        check_metric(Sweep(metric=metric), config)
    for metric in ("log_loss", "validation/perplexity", "val_loss", None, 3, "measured"):
        with pytest.raises(ConfigError, match=f"sweep.metric={metric}: no trial with this head reports it; there are"):
            check_metric(Sweep(metric=[LOSS, metric]), config)
    config.head = LMHead()
    check_metric(Sweep(metric="validation/perplexity"), config)


@pytest.mark.parametrize(
    ("changed", "pruner", "said"),
    [
        ({"budget": 1.5}, Asha(), "sweep.budget must be above 0 and at most 1, got 1.5"),
        ({"budget": 0.4}, Patient(), "sweep.budget=0.4 needs a pruner that pauses trials"),
        ({"budget_h": 1.0}, NoPruner(), "sweep.budget_h=1.0 needs a pruner that pauses trials"),
        ({"budget_h": 0.0}, Asha(), "sweep.budget_h must be above 0, got 0.0"),
    ],
)
def test_a_budget_is_a_share_and_needs_trials_that_can_pause(
    changed: dict[str, Any], pruner: Pruner, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        validate_sweep(Sweep(**changed), pruner)


def test_what_the_trials_of_a_pack_share_is_no_objective() -> None:
    said = "sweep.metric=measured/peak_memory_bytes: the trials of a pack share it; use predicted/peak_memory_bytes"
    with pytest.raises(ConfigError, match=re.escape(said)):
        validate_sweep(Sweep(metric=[LOSS, "measured/peak_memory_bytes"]), NoPruner())
    validate_sweep(Sweep(metric="measured/seconds/train", pack=1), NoPruner())


@pytest.mark.parametrize("ahead", [0, "many", True, 1.5])
def test_draws_ahead_are_a_number_or_auto(ahead: object) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.draws_ahead must be auto or a whole number from 1"):
        validate_sweep(Sweep(draws_ahead=ahead), NoPruner())
