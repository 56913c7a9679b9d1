r"""Texts of others, made harmless for terminals and spreadsheets, and read back.

In a csv a text that a spreadsheet would take for a formula gets an apostrophe before it, and control characters are
written as `\x1b`. `plain_cell` undoes both, so that names survive from a file to the next.
"""

import re
from typing import Final

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the start of a formula (OWASP, CSV injection); the last four are full-width."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUOTED = re.compile(rf"'+[{re.escape(''.join(FORMULA))}]", re.S)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Signs that move a cursor, end a line or turn the text around; lone halves of signs."""
_WRITTEN_OUT = re.compile(r"\\(?:(\\)|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def neutral(text: str) -> str:
    """The text with control signs, which could move the cursor or turn the text around, written out."""
    return _CONTROL.sub(_written, text)


def _written(found: "re.Match[str]") -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def neutral_cell(text: str) -> str:
    """The text as a cell of a csv: no formula, no control signs. Numbers stay numbers."""
    if _CONTROL.search(text) or _WRITTEN_OUT.search(text):
        text = neutral(text.replace("\\", "\\\\"))
    formula = text.startswith(FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula or _QUOTED.match(text) else text


def plain_cell(cell: str) -> str:
    """The text that `neutral_cell` made this cell of; a cell that it does not make is a text as it stands."""
    text = _WRITTEN_OUT.sub(_read, cell[1:] if _QUOTED.match(cell) else cell)
    return text if text != cell and neutral_cell(text) == cell else cell


def _read(found: "re.Match[str]") -> str:
    return found[1] or chr(int(found[2] or found[3], 16))
