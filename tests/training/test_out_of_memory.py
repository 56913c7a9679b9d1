"""A lack of memory: how it is recognised, and whose error it becomes."""

from collections.abc import Callable

import pytest
import torch

from danube_sweep.config.schema import Config
from danube_sweep.errors import DiskError, OutOfMemory, PackOutOfMemory
from danube_sweep.training.out_of_memory import concerns_the_pack, is_memory_error, is_process_error, memory_errors

Tiny = Callable[..., Config]

LACKS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
]


@pytest.mark.parametrize("error", LACKS, ids=str)
def test_a_lack_of_memory_is_recognised(error: Exception) -> None:
    assert is_memory_error(error) and concerns_the_pack(error)


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_memory_error(RuntimeError("shapes do not match")) and not is_memory_error(ValueError("out of memory"))
    broken = RuntimeError("CUDA error: device-side assert triggered")
    assert is_process_error(broken) and concerns_the_pack(broken) and not is_memory_error(broken)


def test_an_error_of_ours_concerns_its_own_trial() -> None:
    assert not concerns_the_pack(OutOfMemory("out of memory")) and not concerns_the_pack(DiskError("full"))


@pytest.mark.parametrize("error", LACKS, ids=str)
def test_a_trial_alone_is_told_what_to_lower(tiny: Tiny, error: Exception) -> None:
    config = tiny("trainer.micro_batch=2")
    said = r"trainer\.micro_batch=2: lower it or data\.max_length"
    with pytest.raises(OutOfMemory, match=said) as caught, memory_errors(lambda: [config]):
        raise error
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_a_trial_that_cannot_begin_is_named_and_not_the_one_that_trains(tiny: Tiny) -> None:
    trains, begins = tiny("trainer.micro_batch=4"), tiny("trainer.micro_batch=8")
    with pytest.raises(OutOfMemory, match=r"micro_batch=8"), memory_errors(lambda: [trains], begins):
        raise MemoryError


def test_of_several_trials_none_is_named(tiny: Tiny) -> None:
    config = tiny()
    with pytest.raises(PackOutOfMemory, match="with 3 trials together"), memory_errors(lambda: [config] * 3, config):
        raise MemoryError


def test_whatever_else_is_raised_passes_unchanged(tiny: Tiny) -> None:
    for error in (RuntimeError("shapes do not match"), PackOutOfMemory("out of memory"), KeyError("a")):
        with pytest.raises(type(error)) as caught, memory_errors(list):
            raise error
        assert caught.value is error
