"""How a config field is declared."""

from collections.abc import Iterator
from dataclasses import MISSING as REQUIRED
from dataclasses import field, fields
from typing import Any

from omegaconf import MISSING


def setting(help: str, default: Any = REQUIRED, *, path: bool = False) -> Any:
    """A config field with the sentence that `danube-sweep --help GROUP` prints; `path`: it names files, one or several.

    A path is made absolute when a trial is composed, and the trial's hash has the content instead of the name.
    """
    metadata = {"help": help, "path": path}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=MISSING if default is REQUIRED else default, metadata=metadata)


def nested(cls: type, help: str) -> Any:
    """A config field whose value is a dataclass of its own."""
    return field(default_factory=cls, metadata={"help": help})


def path_fields(node: Any) -> Iterator[str]:
    """The fields of a config's dataclass that name files."""
    return (one.name for one in fields(node) if one.metadata.get("path"))
