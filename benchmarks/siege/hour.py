"""The time of a siege, and the seed that it draws by: parts begin in turn until the time is over."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Hour:
    """Ends at `end_s` of the monotonic clock. `left_out` names what had no time to begin."""

    def __init__(self) -> None:
        self.end_s = math.inf
        self.seed = 0
        self.left_out: list[str] = []

    def over(self) -> bool:
        return time.monotonic() > self.end_s

    def begins(self, part: str) -> bool:
        """Whether a part may begin; one that may not is noted."""
        if over := self.over():
            self.left_out.append(part)
        return not over

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """Gives the block this share of the time that is left."""
        outer, now_s = self.end_s, time.monotonic()
        self.end_s = now_s + (outer - now_s) * share
        try:
            yield
        finally:
            self.end_s = outer


HOUR = Hour()
