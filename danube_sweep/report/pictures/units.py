"""The units of metrics, costs and keys, for the names of axes and columns."""

from collections.abc import Mapping
from typing import Final

_UNITS: Final[Mapping[str, str]] = {
    "log_loss": "nats",
    "loss": "nats",
    "seconds": "s",
    "peak_memory_bytes": "bytes",
    "data.max_length": "tokens",
    "data.rows": "rows",
    "data.max_rows": "rows",
    "data.validation_fraction": "share of the rows",
    "schedule.warmup": "share of the steps",
    "schedule.decay": "share of the steps",
    "trainer.epochs": "passes",
    "trainer.effective_batch": "rows",
    "trainer.micro_batch": "rows",
    "trainer.eval_batch": "rows",
    "trainer.max_steps": "steps",
    "trainer.validate_every": "steps",
}
_ENDINGS: Final = {"_gib": "GiB", "_bytes": "bytes", "_s": "s", "_h": "hours", "_steps": "steps", "_tokens": "tokens"}


def unit_of(name: str) -> str | None:
    """The unit of a metric or a key; None for a number without one, and for texts."""
    if name.endswith("_per_s"):
        return "1/s"
    last = name.rpartition("/")[2]
    return _UNITS.get(last) or next((unit for ending, unit in _ENDINGS.items() if last.endswith(ending)), None)


def with_unit(name: str) -> str:
    """`log_loss, nats`: the name of an axis."""
    unit = unit_of(name)
    return name if unit is None else f"{name}, {unit}"
