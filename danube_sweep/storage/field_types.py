"""The types of the fields in the JSON files of a run folder, checked before any field is used."""

import math
from collections.abc import Mapping
from typing import Any, Final

from danube_sweep.config.schema.states import MICRO_BATCH, State

Kinds = tuple[type, ...]
_NUMBERS: Final = "a mapping of names to numbers"

_STATES: Final = {state.value for state in State}
_TEXT: Kinds = (str, type(None))
_WHOLE: Kinds = (int, type(None))
_NUMBER: Kinds = (int, float, type(None))
_TABLE: Kinds = (dict, type(None))

RESULT: Final[dict[str, Kinds]] = {
    **dict.fromkeys(("trial", "name", "error"), _TEXT),
    **dict.fromkeys(("seed", "steps", "best_step"), _WHOLE),
    **dict.fromkeys(("epochs", "train_loss"), _NUMBER),
    **dict.fromkeys(("validation", "test", "references", "rows", "parameters", "predicted", "adjusted"), _TABLE),
    "measured": (dict,),
    "prior": (list, type(None)),
    "last_lines": (list,),
    "left_out": (bool,),
}
ENVIRONMENT: Final[dict[str, Kinds]] = {
    "trial": _TEXT, "hash_version": (int,), "also": (list,), "data": _TABLE, "machine": _TABLE, "versions": _TABLE
}  # fmt: skip
TRIAL: Final[dict[str, Kinds]] = {
    "number": (int,), "hash": _TEXT, "overrides": (list,), "draw": _WHOLE, "confirms": (bool,), "hash_version": (int,)
}  # fmt: skip
ATTEMPT: Final[dict[str, Kinds]] = {
    **dict.fromkeys(("state", "started", "host"), (str,)),
    **dict.fromkeys(("exit", "slot"), _WHOLE),
    **dict.fromkeys(("reason", "pack"), _TEXT),
    "seconds": (int, float),
}
SWEEP: Final[dict[str, Kinds]] = {
    **dict.fromkeys(("created", "config_dir", "config_name", "door"), _TEXT),
    **dict.fromkeys(("settings", "tracking"), (dict,)),
    "search": _TABLE,
    "command": (list,),
    "hash_version": (int,),
}
_COUNTS: Final = ("rows", "parameters")
ADJUSTED: Final[dict[str, Kinds]] = {MICRO_BATCH: (int,)}


def misfit(found: Mapping[str, Any], kinds: Mapping[str, Kinds]) -> str | None:
    """The first field whose value has the wrong type, as `seed=…`. Missing and unknown fields are accepted."""
    return next(
        (_named(name, found[name]) for name in kinds if name in found and not _is(found[name], kinds[name])), None
    )


def misfit_of_result(found: Mapping[str, Any]) -> str | None:
    """The first field of a result that cannot be used, as `state=…`; None if all can.

    A state that is not ours is such a field.
    """
    if not isinstance(found.get("state"), str) or found["state"] not in _STATES:
        return _named("state", found.get("state"))
    if (wrong := misfit(found, RESULT)) is not None:
        return wrong
    numbers = {name: found.get(name) or {} for name in ("validation", "test", "references", "rows", "parameters")}
    numbers["measured.seconds"] = found.get("measured", {}).get("seconds", {})
    for name, table in numbers.items():
        kinds = (int,) if name in _COUNTS else _NUMBER
        if not isinstance(table, dict) or not all(_is(one, kinds) for one in table.values()):
            return _named(name, table)
    if not all(_is(one, (int, float)) for one in found.get("prior") or []):
        return _named("prior", found["prior"])
    return None


def misfit_of_sweep(found: Mapping[str, Any]) -> str | None:
    """The first field of a sweep.json that cannot be used, as `search=…`; None if all can."""
    if (wrong := misfit(found, SWEEP)) is not None:
        return wrong
    search, settings = found.get("search") or {}, found.get("settings", {}).get("sweep", {})
    if search and not (isinstance(search.get("space"), dict) and isinstance(search.get("fixed"), list)):
        return _named("search", search)
    if not isinstance(settings, dict):
        return _named("settings.sweep", settings)
    for name in ("metric", "goal"):
        value = settings.get(name)
        if not all(isinstance(one, str | None) for one in (value if isinstance(value, list) else [value])):
            return _named(f"settings.sweep.{name}", value)
    return None


def _is(value: Any, kinds: Kinds) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, float) and int in kinds and float not in kinds:
        return False
    if isinstance(value, int) and float in kinds:
        return math.isfinite(value) if abs(value) < 2**63 else False
    return isinstance(value, kinds)


def _named(name: str, value: Any) -> str:
    text = repr(value)
    return f"{name}={text if len(text) <= 60 else f'{text[:60]}…'}"
