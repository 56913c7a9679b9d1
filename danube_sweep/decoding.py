"""JSON and YAML from files that anything may have happened to: a value, or one error that says why there is none."""

import json
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

MOST_NODES: Final = 200_000
"""A file of ours has some hundred. With aliases a small YAML file can stand for more than fits into memory."""
# libyaml's loader is ten times faster and knows the same tags.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST: Final = 200
"""libyaml's loader recurses in C, where Python cannot stop it."""


class Undecodable(ValueError):
    """The text of a file is not what its name promises; the message is the reason alone, in one line."""


def json_of(file: Path) -> Any:
    """The value in a JSON file. Raises OSError, or Undecodable."""
    return json_from(file.read_bytes())


def json_from(text: str | bytes) -> Any:
    """The value in a JSON text, UTF-8 if it is bytes. Raises Undecodable."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise Undecodable("nested too deeply") from error
    except ValueError as error:
        raise Undecodable(_in_a_line(error)) from error


def yaml_of(file: Path) -> Any:
    """The value in a YAML file. Raises OSError, or Undecodable."""
    return yaml_from(file.read_bytes())


def yaml_from(text: str | bytes) -> Any:
    """The value in a YAML text, UTF-8 if it is bytes. Raises Undecodable.

    PyYAML raises a ValueError for 2024-02-31, an AttributeError or a TypeError for some tags and keys.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        _check_depth(text)
        value = yaml.load(text, _LOADER)
    except RecursionError as error:
        raise Undecodable("nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
        raise Undecodable(_in_a_line(error)) from error
    _check_size(value)
    return value


def yaml_in_sections(text: str | bytes) -> Any:
    """`yaml_from`, which reads what stands under one key of the top once, however many texts have it.

    Texts share these values, so that nobody may change them. Raises Undecodable.
    """
    with suppress(UnicodeDecodeError, Undecodable):
        whole = text if isinstance(text, str) else text.decode("utf-8")
        sections = [one for one in _AT_THE_TOP.split(whole) if one]
        found = [_section(one) for one in sections if _NAMED.match(one)]
        if sections and len(found) == len(sections) and all(isinstance(one, dict) for one in found):
            return {key: value for one in found for key, value in one.items()}
    return yaml_from(text)


_AT_THE_TOP: Final = re.compile(r"^(?=\S)", re.MULTILINE)
_NAMED: Final = re.compile(r"[A-Za-z_]\w*:[ \n]")


@lru_cache(maxsize=4096)
def _section(text: str) -> Any:
    return yaml_from(text)


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise Undecodable("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(value: Any) -> None:
    # What aliases name is counted each time: whoever walks the value does too. One that holds itself never ends.
    waiting, count = [value], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MOST_NODES:
            raise Undecodable(f"more than {MOST_NODES:,} values")
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list | tuple | set):
            waiting += node


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
