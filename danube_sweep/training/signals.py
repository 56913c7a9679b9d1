"""Stopping on request: the first signal asks for a clean stop at the next step border, the second stops at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self, final

from danube_sweep.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@final
class StopRequest:
    """Whether somebody asked to stop. As a context it listens to SIGINT, SIGTERM and SIGHUP, except where they
    are ignored, as under nohup (main thread only). With `patient` only the first one counts: a trial of a sweep may
    hear from the system and from its sweep. With `silent` it prints nothing: the process that it passes the request on
    to does.
    """

    def __init__(self, *, patient: bool = False, silent: bool = False) -> None:
        self.signal_number: int | None = None
        self._patient, self._silent = patient, silent
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        for number in self._before:
            signal.signal(number, self._handle)  # Lightning puts its own in front when it starts to fit
        return self.signal_number is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            again = b"" if self._patient else b"; again to stop at once"
            if not self._silent:
                os.write(2, b"stopping after this step" + again + b"\n")
        elif not self._patient:
            raise Interrupted(
                "at once, without a checkpoint of the last steps; resume goes on from the one before", number
            )
