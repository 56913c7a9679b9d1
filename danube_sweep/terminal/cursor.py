"""The cursor, which rich hides while bars move, is there again when a signal ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from rich.console import Console

SHOWN: Final = b"\x1b[?25h"
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def cursor_shown_at_the_end(console: Console) -> Iterator[None]:
    """To be put around bars. Signals that somebody handles are left alone, and so are those of other threads."""
    if not console.is_terminal or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        with suppress(OSError, ValueError):
            os.write(console.file.fileno(), SHOWN)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)
