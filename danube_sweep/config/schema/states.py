"""How a run can end."""

from enum import Enum


class State(Enum):
    """How a run ended. All but `preempted`, which can continue from its checkpoint, are in its result.json."""

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


MICRO_BATCH = "trainer.micro_batch"
"""The one value that a sweep may change in a trial that ran out of memory; the trial stays the same."""

COMPLETE = (State.finished.value, State.pruned.value)
"""The states of a trial that ended as it should: it has metrics, predictions and a product."""
