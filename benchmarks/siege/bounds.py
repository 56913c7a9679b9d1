"""The bounds of an input of the siege: seconds and memory, and a trace of it should the process not live to tell."""

import faulthandler
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

LONGEST_S = 30.0
AT_ALL_S = 60.0
"""C code that never returns to Python hears no signal: the process then prints where it is and ends."""
MOST_BYTES = 1 << 30
"""The address space that an input may add to the process."""


class TooLong(BaseException):
    """An input took longer than its seconds; no `except Exception` of a reader swallows it."""


@contextmanager
def seconds(longest_s: float = LONGEST_S) -> Iterator[None]:
    """Raises TooLong in the block once it has taken so long; for the main thread. A timer that ran goes on after it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"took longer than {longest_s:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    faulthandler.dump_traceback_later(longest_s + AT_ALL_S - LONGEST_S, exit=True)
    (left_s, _), began_s = signal.setitimer(signal.ITIMER_REAL, longest_s), time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - began_s), 0.01))


@contextmanager
def memory(most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Python's allocations raise MemoryError in the block once the process has grown by so much."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    asked = now + most_bytes
    resource.setrlimit(resource.RLIMIT_AS, (asked if hard == resource.RLIM_INFINITY else min(asked, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def on_disk(file: Path, content: bytes) -> Iterator[None]:
    """Keeps an input in `file` while it is read, and afterwards if the block raises or the process dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    yield
    file.unlink()
