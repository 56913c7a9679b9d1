"""How many trials train together, and which may join a pack."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, final

from danube_sweep.errors import CheckpointError
from danube_sweep.planner.packs import pack_key, together
from danube_sweep.schema import Config, Sweep
from danube_sweep.sweep.source import Claim, Source, Wanted
from danube_sweep.validate import AUTO

MOST_TOGETHER: Final = 32
"""Trials that sweep.pack=auto considers for a pack."""


@final
class Packer:
    """What sweep.pack says, the planner predicts, and has turned out so far."""

    def __init__(self, settings: Sweep) -> None:
        self._pack, self._slots = settings.pack, settings.slots
        self._most: dict[str, int] = {}
        """Key -> the largest pack, where a larger one has died."""
        self._before: dict[str, int | None] = {}
        """Key -> what stood there before a death that a single trial may be to blame for."""

    def key(self, claim: Claim) -> str | None:
        """Trials with the same key may train together; None trains alone."""
        with suppress(CheckpointError):
            return None if self._pack == 1 else pack_key(claim.trained)
        return None

    def size(self, first: Claim, key: str, source: Source, share: int | None) -> int:
        """How many trials should start together with `first`, itself included, if there are as many.

        `share`: the slot's share of what waits, which a pack whose size is chosen here keeps to.
        """
        if self._pack != AUTO:
            return self.capped(key, self._pack)
        most = self.capped(key, MOST_TOGETHER if share is None else min(share, MOST_TOGETHER))
        if most == 1:
            return 1
        others = source.waiting(first, lambda config: pack_key(config) == key, most - 1)
        return together([first.trained, *others], self._slots)

    def joining(self, key: str, present: Sequence[Claim]) -> Wanted:
        """Which trials may join those present."""
        return partial(self._joins, key, [claim.trained for claim in present])

    def _joins(self, key: str, present: Sequence[Config], config: Config) -> bool:
        if pack_key(config) != key:
            return False
        return self._pack != AUTO or together([*present, config], self._slots) > len(present)

    def capped(self, key: str, size: int) -> int:
        """At most `size`, and no more than what survived."""
        return min(size, self._most.get(key, size))

    def died(self, key: str, size: int) -> None:
        """A pack with `size` trials left has died: larger ones than survive are not tried again."""
        self._before.setdefault(key, self._most.get(key))
        self._most[key] = self.capped(key, max(1, size // 2))

    def survived(self, key: str, size: int) -> None:
        """A pack of `size` came to its end."""
        if key in self._most:
            self._most[key] = max(self._most[key], size)

    def explained(self, key: str) -> None:
        """The trial that its pack died of was found alone: the size was not to blame."""
        before = self._before.pop(key, None)
        if before is None:
            self._most.pop(key, None)
        else:
            self._most[key] = before

    def learn(self, claim: Claim, result: dict[str, Any]) -> None:
        """Takes a result: predictions are corrected by what was measured."""
