"""The record of a bad end: its state and its words, or nothing where there is no result."""

import errno
import os

import pytest
from safetensors import SafetensorError

from danube_sweep.errors import ConfigError, DiskError, Diverged, GuardError, Interrupted, OutOfMemory
from danube_sweep.training.failure import failure


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (Diverged("the loss is not finite"), {"state": "diverged", "error": "the loss is not finite"}),
        (OutOfMemory("out of memory"), {"state": "oom", "error": "out of memory"}),
        (GuardError("a head is frozen"), {"state": "failed", "error": "a head is frozen"}),
        (ZeroDivisionError("by zero"), {"state": "failed", "error": "ZeroDivisionError: by zero"}),
        (Interrupted("at step 3"), {}),
        (ConfigError("lora.rank must be at least 1"), {}),
        (DiskError("no permission"), {}),
    ],
)
def test_every_end_has_its_record(error: Exception, recorded: dict[str, str]) -> None:
    assert failure(error) == recorded


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_found_behind_the_error_that_tells_of_it(number: int) -> None:
    told = DiskError("result.json cannot be written")
    told.__cause__ = OSError(number, os.strerror(number))
    assert failure(told) == {"state": "disk_full", "error": "result.json cannot be written"}
    assert failure(SafetensorError(f"I/O error (os error {number})"))["state"] == "disk_full"
    assert failure(OSError(errno.EACCES, "denied"))["state"] == "failed"
