"""Texts without secrets. A secret is known by its shape, by the name of its field, or as the value of a secret
variable.

Shapes and fields count everywhere. The value of a variable is replaced only in free text: messages, names, commands. In
a field that this package reads back, a variable STAGE_KEY=finished must not change a word.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from danube_sweep.config import from_environment

HIDDEN: Final = "<redacted>"
FREE_TEXT: Final = {
    *("name", "overrides", "fixed", "command", "error", "reason", "note", "notes", "message", "warnings"),
    *("project", "entity", "group", "tags", "description"),
}
"""Fields whose texts are shown or were typed by the user, and decide nothing when they are read back."""

_WORDS = (
    "password|passwd|passphrase|secret|credentials?|webhook|dsn|connection[_-]?string|"
    r"(?:api|access|secret|account|private)[_-]?key|shared_?access_?(?:key|signature)"
)
_NO_SPECIAL = "".join(f"(?<!{kind})" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_FIELD = re.compile(rf"(?:(?:.*[\W_])?(?:{_WORDS})|(?:.*{_NO_SPECIAL}[\W_])?(?:token|auth))", re.I)
_SECRET_VARIABLE = re.compile(
    "KEY|TOKEN|SECRET|PASS|CREDENTIAL|WEBHOOK|DSN|AUTH|CONNECTION|_PAT$|_PWD$|(DATABASE|REDIS|MONGO|AMQP)\\w*_UR[IL]$",
    re.I,
)
_VALUE = r"(?![\"'$<\[{])[^\s\"'&;,<>]"

_ALONE = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*-----|\Z)",
    r"https://(?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks|[\w.-]+\.webhook\.office\.com)/\S+",
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\b(?:xox[a-z]-[\w-]{10,}|AIza[\w-]{30,})",
    r"\b(?:sk|pk|rk)[-_](?=[\w-]*\d)[\w-]{16,}",
    r"\b(?:wandb_v\d_\w{20,}|local-[0-9a-f]{40}\b)",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",  # a JSON web token
)
_AFTER = (
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@:<>]*:[^\s/@<>]+|[^\s/@:<>]{20,})(?=@)",
    r"((?i:\b(?:bearer|basic)\s+))[\w.~+/-]{8,}=*",
    rf"((?i:(?:\b|_)(?:{_WORDS})[\"']?\s*[=:]\s*[\"']?)){_VALUE}{{4,}}",
    rf"({_NO_SPECIAL}(?i:(?:\b|_)(?:token|auth|sig|pwd)=)){_VALUE}{{6,}}",
)
_SHAPES = [(re.compile(shape), HIDDEN) for shape in _ALONE]
_SHAPES += [(re.compile(shape), rf"\g<1>{HIDDEN}") for shape in _AFTER]

_FORTY_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
"""A key of W&B, or a commit."""
_COMMIT = re.compile(r"(?:commit|revision|sha|snapshots|blobs|checkout|@)[^0-9A-Za-z]*$", re.I)


def redact(text: str) -> str:
    """A text that is only shown, without secrets."""
    for name, value in _secrets():
        if value in text:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", f"<{name}>", text)
    return without_shapes(text)


def without_shapes(text: str) -> str:
    """The text without keys, tokens, passwords and addresses with credentials, as far as their shapes show them."""
    for shape, put in _SHAPES:
        text = shape.sub(put, text)
    return _FORTY_HEX.sub(lambda found: found[0] if _is_commit(found) else HIDDEN, text)


def _is_commit(found: "re.Match[str]") -> bool:
    return bool(_COMMIT.search(found.string[max(0, found.start() - 20) : found.start()]))


def redacted(node: Any, field: str = "", *, shown: bool = False) -> Any:
    """Nested mappings and lists without secrets. To be called before special characters are escaped.

    `shown`: nothing reads the result back, so every text counts as free text.
    """
    match node:
        case str() if node and _FIELD.fullmatch(field):
            return node if node.startswith("${") else HIDDEN
        case str() if field in _COMMITS and _FORTY_HEX.fullmatch(node):
            return node
        case str():
            return redact(node) if shown or field in FREE_TEXT else without_shapes(node)
        case Mapping():
            return {str(key): redacted(value, str(key), shown=shown) for key, value in node.items()}
        case list() | tuple():
            return [redacted(value, field, shown=shown) for value in node]
    return node


_COMMITS = ("commit", "revision")


def _secrets() -> Iterator[tuple[str, str]]:
    """Variables with the names of secrets and values of at least 8 characters that are no words or paths of files."""
    taken = {name: value for value, name in from_environment.values().items()}
    for name, value in {**os.environ, **taken}.items():
        named = name in taken or _SECRET_VARIABLE.search(name)
        if named and len(value) >= 8 and not _is_word(value) and not os.path.exists(value):
            yield name, value


def _is_word(value: str) -> bool:
    return len(value) < 16 and value.isalpha()
