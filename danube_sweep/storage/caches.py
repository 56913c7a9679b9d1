"""Caches are never fatal: what is damaged is made again, what cannot be kept is done without. The log says so.

Every entry is named by a hash of what decides its content, written whole, and checked by a hash of its content.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)


@contextmanager
def alone(entry: Path) -> Iterator[None]:
    """While one process makes an entry, others wait for it; where no lock can be had, each makes its own."""
    with ExitStack() as stack:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(entry.with_suffix(".lock"), fallback_to_soft=False))
        except (OSError, NotImplementedError) as error:
            log.warning("%s cannot be locked (%s); making its own entry", entry.parent, error)
        yield
