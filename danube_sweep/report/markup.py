"""HTML and SVG as text: whatever is not markup of ours is escaped."""

import html
import re
from functools import cache
from typing import Any, Final, final

_VOID: Final = frozenset({"br", "hr", "input", "meta"})
_DRAWN: Final = frozenset({"circle", "line", "path", "polyline", "rect"})
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Control characters, lone surrogates, and marks that change the direction of text."""

_SPECIAL: Final = re.compile(f"[&<>\"']|{_NO_TEXT.pattern}")

Part = str | int | float | None


@final
class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(part: Part) -> str:
    """Text as HTML shows it; Markup stays as it is, None is nothing."""
    if part.__class__ is Markup:
        return part
    if part is None:
        return ""
    text = str(part)
    if _SPECIAL.search(text) is None:  # nine in ten: most of a page are numbers
        return text
    return html.escape(_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text))


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
    if value is False:
        return ""
    name = _name(key)
    if value is True:
        return f" {name}"
    if value.__class__ is float:
        text = f"{value:.1f}"
        return f' {name}="{text[:-2] if text.endswith(".0") else text}"'
    return f' {name}="{escaped(str(value))}"'


@cache
def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
