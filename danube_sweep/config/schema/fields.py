"""How a config field is declared."""

from dataclasses import MISSING as REQUIRED
from dataclasses import field
from typing import Any

from omegaconf import MISSING


def setting(help: str, default: Any = REQUIRED) -> Any:
    """A config field with the sentence that `danube-sweep --help GROUP` prints."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=MISSING if default is REQUIRED else default, metadata={"help": help})


def nested(cls: type, help: str) -> Any:
    return field(default_factory=cls, metadata={"help": help})
