"""Keys that no dataclass declares: `+lora.rnk=32` composes in Hydra, and would train the default."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from danube_sweep.config.explain import unknown_field
from danube_sweep.errors import ConfigError

HYDRAS = ("hydra", "hydra.env")
"""Keys that Hydra adds itself."""


def refuse_unknown_fields(config: DictConfig, at: str = "") -> None:
    """Raises ConfigError, in one line, for the first key at any depth that its dataclass does not declare.

    `at` is the key of `config` itself. A value without a dataclass, like the fields of lora=peft, is free.
    """
    for found in _unknown(config, f"{at}." if at else ""):
        raise ConfigError(unknown_field(*found))


def _unknown(node: DictConfig, prefix: str) -> Iterator[tuple[str, list[str], str, str | None]]:
    schema = OmegaConf.get_type(node)
    names = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []
    for name in map(str, node):
        key, child = f"{prefix}{name}", node._get_node(name)
        if dataclasses.is_dataclass(schema) and name not in names and key not in HYDRAS:
            yield key, names, *_leaf(key, child)
        elif isinstance(child, DictConfig) and _is_mapping(child):
            yield from _unknown(child, f"{key}.")


def _leaf(key: str, node: Any) -> tuple[str, str | None]:
    """The key as it was typed, `foo.bar` and not `foo`, and its value."""
    while isinstance(node, DictConfig) and _is_mapping(node) and len(node) == 1:
        (name,) = map(str, node)
        key, node = f"{key}.{name}", node._get_node(name)
    return key, None if isinstance(node, DictConfig) else str(node)


def _is_mapping(node: DictConfig) -> bool:
    return not (node._is_none() or node._is_missing() or node._is_interpolation())
