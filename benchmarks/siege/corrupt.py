"""Files as accidents, editors and strangers leave them: bytes lost, flipped, repeated, and values of other kinds."""

import json
from random import Random
from typing import Any

TOKENS = [
    *(
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e999",
        b"NaN",
        b'""',
        b"[]",
        b"{}",
        b"9" * 400,
        b"2024-02-31",
        b"~",
        b"\xff\xfe",
    ),
    *(b"\0" * 64, b"\n", b"\r\n", b",", b":", b'"', b"'", b"- ", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: "),
    *(b"[" * 3000, b"{" * 300, b'{"a":' * 3000, b"\xf0\x9f\x98\x80", b"\\ud800", b"\x1b[2J", b"=1+1", b"%s", b"../../"),
]
"""What parsers stumble over."""
VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**70, 1e308, float("nan"), float("inf"), "", "x", "finished", "\0", "\ud800", "a\nb"),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, ["x"] * 3, "x" * 5000, [1e308] * 3, {"log_loss": "0.1"}),
]
"""What a field may hold that should not."""


def mutated(content: bytes, random: Random) -> bytes:
    """The content, damaged in one to three places."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice((_cut, _flip, _lose, _repeat, _insert, _zeros))(content, random)
    return content


def other_values(node: Any, random: Random) -> Any:
    """A JSON value with one of the values inside it, however deep, exchanged, removed or added."""
    root = json.loads(json.dumps(node))
    places = list(_places(root))
    holder, key = random.choice(places) if places else (None, None)
    if holder is None:
        return random.choice(VALUES)
    match random.randrange(5):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(("more", "", "kind", "x\0"))] = random.choice(VALUES)
        case _:
            holder[key] = random.choice(VALUES)
    return root


def _places(node: Any) -> list[tuple[Any, Any]]:
    found = []
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        found += [(node, key), *_places(value)]
    return found


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 4))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _range(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice((1, 2, 8, 64, 512)))


def _lose(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:end] + content[start:end] * random.choice((1, 2, 50)) + content[end:]


def _insert(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + random.choice(TOKENS) + content[random.choice((start, end)) :]


def _zeros(content: bytes, random: Random) -> bytes:
    start, end = _range(content, random)
    return content[:start] + b"\0" * (end - start) + content[end:]
