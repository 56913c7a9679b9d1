"""What tells that memory did not suffice."""

import torch

MEMORY_SIGNS = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
"""What drivers and allocators say in a plain RuntimeError."""


def is_memory_error(error: BaseException) -> bool:
    """Whether it says that memory, the device's or the host's, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in MEMORY_SIGNS)
