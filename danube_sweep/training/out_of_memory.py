"""Running out of memory: the one place where it becomes an error of ours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from danube_sweep.config.schema import Config
from danube_sweep.errors import DanubeSweepError, OutOfMemory, PackOutOfMemory
from danube_sweep.model.memory_signs import is_memory_error


def is_process_error(error: BaseException) -> bool:
    """Whether the process cannot use its GPU any more: an assertion or a fault in a kernel."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def concerns_the_pack(error: Exception) -> bool:
    """Whether a trial's error is everybody's: memory did not suffice, or the device does not work any more."""
    return not isinstance(error, DanubeSweepError) and (is_memory_error(error) or is_process_error(error))


@contextmanager
def memory_errors(training: Callable[[], Sequence[Config]], config: Config | None = None) -> Iterator[None]:
    """Inside, a lack of memory is raised as PackOutOfMemory if several trials are `training`, otherwise as OutOfMemory.

    `training` is called when it happens. The error names `config`, or without it the one trial that trains.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error) or isinstance(error, DanubeSweepError):
            raise
        together = training()
        if len(together) > 1:
            raise PackOutOfMemory(f"out of memory with {len(together)} trials together") from error
        if config is None:
            (config,) = together
        raise OutOfMemory(
            f"out of memory with trainer.micro_batch={config.trainer.micro_batch}: lower it or data.max_length, "
            "or use precision.gradient_checkpointing=true or precision=nf4_dq"
        ) from error
