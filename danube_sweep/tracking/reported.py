"""What a tracker is told of a trial's result."""

from typing import Any


def reported(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a result, by the keys that were logged: a sweep's objective is found by them."""
    numbers = {f"validation/{name}": value for name, value in (result.get("validation") or {}).items()}
    for task, found in (result.get("benchmark") or {}).items():
        numbers |= {f"benchmark/{task}/{name}": found[name] for name in ("before", "after", "change")}
    return numbers
