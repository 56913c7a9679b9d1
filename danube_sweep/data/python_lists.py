"""Lists as Python and numpy print them: a csv that pandas wrote from a column of lists holds such texts."""

import ast
import io
import re
import tokenize
import warnings
from itertools import pairwise
from typing import Any

LONGEST_CHARACTERS = 2**20
"""A longer text is not taken for a list: to look at it costs memory."""

_BEGINS = re.compile(r"""\[\s*(?:[uUrR]?['"]|(?:None|nan|True|False)\b)""")
_NAMES = {"None": None, "nan": None, "True": True, "False": False}
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT}
_COMMA = object()


def python_list(text: str) -> list[Any] | None:
    """The strings, numbers, booleans and nulls of a list that Python printed; None for any other text."""
    found = _elements(text)
    if found is None or _runs_together(found):
        return None
    return [element for element in found if element is not _COMMA]


def is_numpy_array(text: str) -> bool:
    """Whether numpy printed the text: `['a' 'b']` has no commas, so where its texts end cannot be told for sure."""
    found = _elements(text)
    return found is not None and _runs_together(found)


def _elements(text: str) -> list[Any] | None:
    """The elements and the commas between the brackets; None for a text that is no list of plain values."""
    text = text.strip()
    if len(text) > LONGEST_CHARACTERS or _BEGINS.match(text) is None or not text.endswith("]"):
        return None
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in _LAYOUT]
        if [token.string for token in (tokens[0], tokens[-1])] != ["[", "]"]:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a backslash that escapes nothing: Python never prints that
            return [_element(token) for token in tokens[1:-1]]
    except (tokenize.TokenError, SyntaxError, ValueError, Warning):
        return None


def _element(token: tokenize.TokenInfo) -> Any:
    """Raises ValueError for anything but a plain value."""
    if token.string == ",":
        return _COMMA
    if token.type == tokenize.NAME and token.string in _NAMES:
        return _NAMES[token.string]
    value = ast.literal_eval(token.string) if token.type in (tokenize.STRING, tokenize.NUMBER) else token
    if not isinstance(value, str | int | float):
        raise ValueError(token.string)
    return value


def _runs_together(elements: list[Any]) -> bool:
    """Whether two elements are adjacent without a comma."""
    return any(one is not _COMMA and other is not _COMMA for one, other in pairwise(elements))
