"""Caches are never fatal: a damaged entry is made again, and one that cannot be kept is not. The log has a line on it.

Every entry is named by a hash of all that decides its content. It is written whole, and checked by a hash of its
content.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)


@contextmanager
def alone(entry: Path) -> Iterator[None]:
    """Inside, this process alone makes the entry, and others wait. Where no lock can be had, each process makes its
    own.
    """
    with ExitStack() as stack:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(entry.with_suffix(".lock"), fallback_to_soft=False))
        except (OSError, NotImplementedError) as error:
            log.warning("%s cannot be locked (%s); making its own entry", entry.parent, error)
        yield
