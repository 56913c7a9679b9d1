"""How a config field is declared."""

from dataclasses import MISSING as REQUIRED
from dataclasses import field, fields
from typing import Any, Literal

from omegaconf import MISSING

PathTo = Literal["files", "folder", "place"]
"""The target of a path field: existing files, which count by content; a folder or a hub name; or a place to write."""


def setting(help: str, default: Any = REQUIRED, *, path: PathTo | None = None) -> Any:
    """A config field with the sentence that `danube-sweep --help GROUP` prints; `path` if it holds one."""
    metadata: dict[str, Any] = {"help": help} | ({} if path is None else {"path": path})
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=MISSING if default is REQUIRED else default, metadata=metadata)


def nested(cls: type, help: str) -> Any:
    """A config field whose value is a dataclass."""
    return field(default_factory=cls, metadata={"help": help})


def path_fields(config: Any) -> dict[str, PathTo]:
    """The fields that hold paths, by name, of a part of the config or of its class."""
    return {one.name: one.metadata["path"] for one in fields(config) if "path" in one.metadata}
