"""A field and its value as the word of a command line that Hydra reads back as the same value."""

import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./+:%@~-]+")
_OTHER = re.compile(r"null|true|false|nan|[-+]?inf|[-+]?[\d_]+(\.[\d_]*)?(e[-+]?\d+)?", re.I)
"""Words that Hydra reads as something else than text."""


def override_word(field: str, value: Any) -> str:
    """`field=value`, quoted for Hydra where need be; the shell's quotes are not part of it."""
    return f"{field}={_value(value)}"


def _value(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(_value, value))}]"
        case str():
            return value if _PLAIN.fullmatch(value) and not _OTHER.fullmatch(value) else _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    # Hydra halves the backslashes before a quote and leaves all others.
    inside = re.sub(r"(\\*)'", r"\1\1\\'", text.replace("${", "\\${"))
    return "'" + re.sub(r"(\\+)$", r"\1\1", inside) + "'"
