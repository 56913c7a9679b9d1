"""How a run can end, and what a sweep tells a trial at a validation."""

from enum import Enum


class State(Enum):
    """How a run ended. All but `preempted` and `paused`, which continue from a checkpoint, are in its result.json."""

    finished = "finished"
    pruned = "pruned"
    failed = "failed"
    oom = "oom"
    diverged = "diverged"
    killed = "killed"
    timeout = "timeout"
    disk_full = "disk_full"
    invalid = "invalid"
    preempted = "preempted"
    paused = "paused"


class Verdict(Enum):
    """What becomes of a trial after a validation."""

    go_on = "go_on"
    pause = "pause"
    """It leaves with a checkpoint and may be promoted later."""
    prune = "prune"
    """It ends early, for good."""
    finish = "finish"
    """It has ended as it should: training on would not make it better."""


MICRO_BATCH = "trainer.micro_batch"
"""The one value that a sweep may change in a trial that ran out of memory; the trial stays the same."""

COMPLETE = (State.finished.value, State.pruned.value)
"""The states of a trial that ended as it should: it has metrics, predictions and a product."""
