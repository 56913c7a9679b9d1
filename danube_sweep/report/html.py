"""HTML and SVG as text: whatever is not markup of ours is escaped."""

import html
import re
from typing import Any, Final, final

_VOID: Final = frozenset({"br", "hr", "input", "meta"})
_DRAWN: Final = frozenset({"circle", "line", "path", "polyline", "rect"})
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Control signs, halves of signs, and what turns the text around it."""

Part = str | int | float | None


@final
class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(part: Part) -> str:
    """Text as HTML shows it; Markup stays as it is, None is nothing."""
    if isinstance(part, Markup):
        return part
    return "" if part is None else html.escape(_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(part)))


def element(name: str, /, *parts: Part, **attributes: Any) -> Markup:
    """`element("td", text, class_="number", data_row="r1")`: None and False leave an attribute out, True is bare."""
    said = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    if name in _DRAWN and not any(parts):
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{''.join(map(escaped, parts))}</{name}>")


def joined(*parts: Part, by: str = "") -> Markup:
    """The parts one after another, without those that are nothing."""
    return Markup(escaped(by).join(escaped(part) for part in parts if part is not None and part != ""))


def _attribute(key: str, value: Any) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
    return f' {name}="{escaped(Markup(text) if isinstance(value, float | int) else text)}"'
