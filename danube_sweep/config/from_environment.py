"""Values that come from the environment: resolved for the run, and stored by the name of their variable.

Variables that hold no secret (`ALLOWED`) are stored by their value, so that a folder is resumed from any shell.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Self, final

from omegaconf import Container, DictConfig, ListConfig, Node

from danube_sweep.errors import ConfigError

ALLOWED = ("DANUBE_SWEEP_*", "CUDA_VISIBLE_DEVICES", "HOME", "USER", "TMPDIR", "SLURM_*")
"""Variables that received folders and sweep files may name."""

_ALLOWED_NAME = "|".join(name.replace("*", r"\w+") for name in ALLOWED)
_HARMLESS = re.compile(rf"\$\{{(?:oc\.env:\s*(?:{_ALLOWED_NAME})\s*(?:,[^${{}}]*)?|\.*[\w.]+)\}}")
_VARIABLE = re.compile(r"\$\{oc\.env:\s*(\w+)\s*(,)?")

_values: dict[str, str] = {}
"""Value -> variable, for what configs of this process took from the environment."""


@final
class FromEnvironment(str):
    """A text of a config that was resolved from the environment; `stated` is what a file may hold."""

    stated: str

    def __new__(cls, value: str, stated: str) -> Self:
        made = super().__new__(cls, value)
        made.stated = stated
        for name, _ in _VARIABLE.findall(stated):
            if not is_allowed(name) and os.environ.get(name):
                _values[os.environ[name]] = name
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (str(self), self.stated)

    def absolute(self) -> "FromEnvironment":
        """As a path that means the same from any working directory."""
        path = Path(self).expanduser()
        relative = not path.is_absolute()
        return FromEnvironment(str(path.absolute()), str(Path.cwd() / self.stated) if relative else self.stated)


def is_allowed(name: str) -> bool:
    """Whether received folders and sweep files may name the variable."""
    return bool(re.fullmatch(_ALLOWED_NAME, name))


def values() -> dict[str, str]:
    """What configs of this process took from the environment, and the variable of each; allowed names are left out."""
    return dict(_values)


def keep_names(typed: Any, composed: DictConfig) -> None:
    """Makes each text of `typed` that `composed` takes from variables off `ALLOWED` a `FromEnvironment`."""
    for address, node in _leaves(composed, ()):
        stated = str(node._value()) if node._is_interpolation() else ""
        if not stated:
            continue
        holder, last = typed, address[-1]
        for word in address[:-1]:
            holder = _get(holder, word)
        value = _get(holder, last)
        if isinstance(value, str) and ("oc.env:" in _HARMLESS.sub("", stated) or any(one in value for one in _values)):
            _set(holder, last, FromEnvironment(value, stated))


def _leaves(node: Container, address: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Node]]:
    if node._is_none() or node._is_missing():
        return
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig) and not child._is_interpolation():
            yield from _leaves(child, (*address, key))
        elif isinstance(child, Node):
            yield (*address, key), child


def _get(holder: Any, key: Any) -> Any:
    return getattr(holder, key, None) if is_dataclass(holder) else holder[key]


def _set(holder: Any, key: Any, value: str) -> None:
    if is_dataclass(holder):
        setattr(holder, key, value)
    else:
        holder[key] = value


def check_received(where: str, node: Any) -> None:
    """Raises ConfigError for a text that takes more from this machine than a stranger's file may ask for.

    A file that others wrote may point to its own fields and to the variables in ALLOWED, by their plain names.
    """
    for text in _texts(node):
        if "${" in _HARMLESS.sub("", text):
            raise ConfigError(
                f"{where}: {text[:100]!r} reads more than {', '.join(ALLOWED)}, which is all that a received file may "
                "ask for; write the value out, or give it on your own command line"
            )


def _texts(node: Any) -> Iterator[str]:
    match node:
        case str():
            yield node
        case dict():
            for key, value in node.items():
                yield from _texts(key)
                yield from _texts(value)
        case list() | tuple():
            for value in node:
                yield from _texts(value)


def missing_variables(node: Any) -> list[str]:
    """Variables without a default that the texts name and the environment lacks."""
    named = [name for text in _texts(node) for name, default in _VARIABLE.findall(text) if not default]
    return [name for name in dict.fromkeys(named) if name not in os.environ]
