"""How long the rest of a sweep will take, by the trials that have ended and by the time that went into the others."""

from typing import final


@final
class Pace:
    """The time left of a sweep. Seconds are those of a clock that never jumps."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._work_s = 0.0
        """Of all attempts: a trial of a pack has its share of the pack's seconds."""
        self._done: set[str] = set()
        self._paused: set[str] = set()
        self._first_s: float | None = None

    def add(self, name: str, *, ended_s: float, seconds: float, places: int, paused: bool) -> None:
        """Takes the end of an attempt of `seconds`, in a process with as many trials at a time as `places`."""
        began_s = ended_s - seconds
        self._first_s = began_s if self._first_s is None else min(self._first_s, began_s)
        self._work_s += seconds / places
        self._done.add(name)
        (self._paused.add if paused else self._paused.discard)(name)

    def left_s(self, still_open: int, now_s: float) -> float | None:
        """Seconds until `still_open` trials have ended, those that are paused among them; None if nothing is known.

        Trials whose pause was added here count as ended. Running ones have had the time that no ended trial accounts
        for; None too if they have had more than trials take on average.
        """
        if self._first_s is None:
            return None
        each_s = self._work_s / len(self._done)
        running_s = max((now_s - self._first_s) * self._slots - self._work_s, 0.0)
        rest_s = max(still_open - len(self._paused), 0) * each_s - running_s
        return rest_s / self._slots if rest_s > 0 else None
