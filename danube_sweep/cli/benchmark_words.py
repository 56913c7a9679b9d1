"""The words of `danube-sweep benchmark` that are no overrides."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danube_sweep.benchmark.pinned_tasks import named_tasks
from danube_sweep.errors import ConfigError

_WORD = re.compile(r"(tasks|limit|shots|batch|chat_template|timeout_h)=(.*)", re.S)


@dataclass(frozen=True)
class Words:
    """The words of the command that are no overrides."""

    tasks: list[str]
    limit: int | None = None
    shots: int | None = None
    batch: int | None = None
    chat_template: bool | None = None
    timeout_h: float | None = None


@dataclass(frozen=True)
class Cell:
    """One model: its overrides, or the folder of a run."""

    overrides: list[str]
    run: Path | None = None


def parsed_words(given: Sequence[str]) -> tuple[Words, list[str]]:
    """These words, checked, and the others. Raises ConfigError."""
    found: dict[str, str] = {}
    rest = []
    for word in given:
        if (match := _WORD.fullmatch(word)) is None:
            rest.append(word)
        else:
            found[match[1]] = match[2]
    names = [one.strip() for one in found.pop("tasks", "").strip("[]").split(",") if one.strip()]
    if not names:
        raise ConfigError("tasks= is missing: give tasks=post, or names like tasks=[arc_easy]; --list shows them")
    chat = found.pop("chat_template", "auto")
    if chat not in ("auto", "true", "false"):
        raise ConfigError(f"chat_template must be auto, true or false, got {chat}")
    numbers: dict[str, Any] = {name: _number(name, text) for name, text in found.items()}
    template = None if chat == "auto" else chat == "true"
    return Words(named_tasks(names), chat_template=template, **numbers), rest


def _number(name: str, text: str) -> float | None:
    if text == "null":
        return None
    try:
        value = float(text) if name == "timeout_h" else int(text)
    except ValueError:
        kind = "number of hours" if name == "timeout_h" else "whole number"
        raise ConfigError(f"{name} must be a {kind}, got {text}") from None
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be a number of hours, got {text}; leave it out for no limit")
    if name == "shots":
        if value < 0:
            raise ConfigError(f"shots must be at least 0, got {text}")
    elif value <= 0:
        least = "above 0" if name == "timeout_h" else "at least 1"
        way_out = "; leave it out for every item" if name == "limit" else ""
        raise ConfigError(f"{name} must be {least}, got {text}{way_out}")
    return value
