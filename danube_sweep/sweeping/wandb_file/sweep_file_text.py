"""A W&B sweep file as plain values, and the checks of its keys and numbers; each mistake is one line.

Messages begin with the key, and `read_sweep_file` puts the file's name before them.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from danube_sweep.errors import ConfigError

MAX_BYTES = 1_000_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class _Loader(yaml.SafeLoader):
    """Refuses parts of YAML: a key given twice, tags, and aliases, with which a small file grows without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(event, f"*{event.anchor} is an alias; write its value out")
        if getattr(event, "tag", None) is not None:
            raise _wrong(event, f"{event.tag} is a tag; leave it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong(key, "a key must be one word")
            if key.value in seen:
                raise _wrong(key, f"the key {key.value} is given twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _wrong(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file of at most 1 MB. Raises ConfigError for anything else."""
    try:
        if not file.is_file():
            raise FileNotFoundError(2, f"no such file (looked in {Path.cwd()})")
        size, text = file.stat().st_size, file.read_bytes() if file.stat().st_size <= MAX_BYTES else b""
    except OSError as error:
        raise ConfigError(f"{error.strerror}; give the path of a W&B sweep file") from error
    if size > MAX_BYTES:
        raise ConfigError(f"a sweep file has at most {MAX_BYTES} bytes, this one has {size}")
    try:
        loaded = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{_place(error)}; mend the YAML") from error
    if loaded is None:
        raise ConfigError("the file is empty; a sweep file has at least method, parameters and command")
    return mapping("the file", loaded)


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or ("nested too deeply" if isinstance(error, RecursionError) else error)
    hint = ", so put ${…} in quotes inside [ ]" if str(said).endswith("but got '{'") else ""
    return f"line {mark.line + 1}: {said}{hint}" if mark is not None else f"no YAML: {' '.join(str(said).split())}"


def quoted(value: Any) -> str:
    """A value as a message quotes it: one line, cut short when long."""
    plain = isinstance(value, str) and value.isprintable() and re.fullmatch(r"\S{1,60}", value)
    return str(value) if plain else reprlib.repr(value)


def mapping(key: str, value: Any) -> dict[str, Any]:
    """`value`, if it is a mapping that is not empty. Raises ConfigError."""
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{key}={quoted(value)}: must be a mapping of keys to values, and not empty")
    return value


def check_keys(key: str, node: Mapping[str, Any], known: Collection[str], why: Mapping[str, str] | None = None) -> None:
    """Raises ConfigError for a key of `node` that is not `known`, with the reason in `why` if it is there."""
    for name, value in node.items():
        if name in known:
            continue
        label = f"{key}.{name}={quoted(value)}" if key else f"{name}={quoted(value)}"
        if why is not None and name in why:
            raise ConfigError(f"{label}: {why[name]}")
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"{label}: no such key here; {hint}there are {', '.join(known)}")


def words(key: str, value: Any) -> str:
    """`value`, if it is text. Raises ConfigError."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key}={quoted(value)}: must be text; put it in quotes")
    return value


def finite_number(key: str, value: Any) -> int | float:
    """A finite number. YAML 1.1 reads 1e-4 as text, so text that looks like a number is one. Raises ConfigError."""
    if isinstance(value, str) and len(value) <= 40 and _NUMBER.fullmatch(value):
        value = int(value) if value.lstrip("+-").isdecimal() else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
        raise ConfigError(f"{key}={quoted(value)}: must be a finite number, like 3 or 1.0e-4")
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def whole(key: str, value: Any, least: int) -> int:
    """A whole number of at least `least`. Raises ConfigError."""
    given = finite_number(key, value)
    if given != int(given) or given < least:
        raise ConfigError(f"{key}={quoted(value)}: must be a whole number of at least {least}")
    return int(given)
