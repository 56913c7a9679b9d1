"""Texts without secrets. A secret is known by its shape, by the name of its field, or as the value of a secret
variable.

Free text (messages, names, commands) is only shown, so each sign counts there. In a field that this package reads back
only shapes that nothing else has count, and names of classes and columns are left alone. A trial with such a shape in a
field that decides something is refused before it is stored: its stored copy would be another trial.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from danube_sweep.config import from_environment

HIDDEN: Final = "<redacted>"
FREE_TEXT: Final = {
    *("name", "overrides", "fixed", "command", "error", "reason", "note", "notes", "message", "warnings"),
    *("project", "entity", "group", "tags", "description"),
}
"""Fields whose texts are shown or were typed by the user, and decide nothing when they are read back."""
_WORDS_TYPED: Final = {"overrides", "fixed"}
"""Of these, lists of KEY=VALUE: a later command may compose trials from them."""
_FROM_DATA: Final = {"classes", "untrained", "columns", "labels"}
"""Fields with names from the user's data, which have to come back as they are."""

_WORDS = (
    "password|passwd|passphrase|pwd|secret|credentials?|webhook|dsn|connection[_-]?string|"
    r"(?:api|access|secret|account|private|wandb)[_-]?key|shared_?access_?(?:key|signature)|"
    r"(?:database|db|postgres|mysql|redis|mongo(?:db)?|amqp|broker|sentry|slack)[_-]?ur[il]"
)
_NO_SPECIAL = "".join(f"(?<!{kind})" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_SECRET_WORD = re.compile(rf"(?:.*[\W_])?(?:{_WORDS})s?", re.I)
_FIELD = re.compile(
    rf"{_SECRET_WORD.pattern}|(?:.*{_NO_SPECIAL}[\W_])?(?:token|auth)|(?:(?:.*[\W_])?(?:access|api|auth|hf|hub)_)?tokens",
    re.I,
)
_SECRET_VARIABLE = re.compile(
    "KEY|TOKEN|SECRET|PASS|CREDENTIAL|WEBHOOK|DSN|AUTH|CONNECTION|_PAT$|_PWD$|(DATABASE|REDIS|MONGO|AMQP)\\w*_UR[IL]$",
    re.I,
)
_ADDRESS_VARIABLE = re.compile(r"UR[IL]$", re.I)
_LONG_PATH = re.compile(r"://[^/]+/.*[\w-]{20,}")
_VALUE = r"(?![\"'$<\[{])[^\s\"'&;,<>]"

_ALONE = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*-----|\Z)",
    r"https://(?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks|[\w.-]+\.webhook\.office\.com)/\S+",
    r"\bhf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,}",
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\b(?:xox[a-z]-(?=[\w-]*\d)[\w-]{10,}|AIza[\w-]{30,})",
    # sk and pk are also Slovak, Pakistan and the head of many a file's name.
    r"\bsk-(?:proj|ant|svcacct|admin|or)-(?:(?=[\w-]*[A-Za-z0-9]{16})[\w-]{16,}|[\w-]{40,})",
    r"\b(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,}",
    r"\bsk-[A-Za-z0-9]{20,}(?![\w-])",
    r"\b(?:wandb_v\d_\w{20,}|local-[0-9a-f]{40}\b)",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",  # a JSON web token
)
_ADDRESSES = (
    # A password may hold / and @: it ends at the last @. A port is none.
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?![^\s/@:<>]*:\d{1,5}(?:/|$))[^\s/@:<>$?#]*:(?:(?!\$\{)[^\s<>\"'])+(?=@)",
    r"(\b(?i:https?)://)[^\s/@:<>$?#]+(?=@)",
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@:<>$?#]{20,}(?=@)",
)
_IN_FREE_TEXT = (
    rf"((?i:authorization[\"']?\s*[=:]\s*[\"']?(?:bearer|basic|token)\s+)){_VALUE}{{4,}}",
    r"((?i:\b(?:bearer|basic)\s+))(?=\S*[\d=])[\w.~+/-]{16,}=*",
    rf"((?i:(?:\b|_)(?:{_WORDS})[\"']?=[\"']?))(?!/){_VALUE}+",
    rf"((?i:(?:\b|_)(?:{_WORDS})[\"']?\s*[=:]\s*[\"']?))(?!/){_VALUE}{{4,}}",
    rf"({_NO_SPECIAL}(?i:(?:\b|_)(?:token|auth|sig)=)){_VALUE}{{6,}}",
)
_CERTAIN = [(re.compile(shape), HIDDEN) for shape in _ALONE]
_CERTAIN += [(re.compile(shape), rf"\g<1>{HIDDEN}") for shape in _ADDRESSES]
_LIKELY = [(re.compile(shape), rf"\g<1>{HIDDEN}") for shape in _IN_FREE_TEXT]
_OVERRIDE = re.compile(r"[+~]{0,2}(?P<key>[\w./@-]+)=(?P<value>(?s:.+))")

_FORTY_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
"""A key of W&B, or a commit."""
_COMMIT = re.compile(r"(?:commit|revision|sha|snapshots|blobs|checkout|@)[^0-9A-Za-z]*$", re.I)


def redact(text: str) -> str:
    """A text that is only shown, without secrets."""
    for name, value in sorted(_secrets(), key=lambda pair: -len(pair[1])):  # one may begin another
        if value in text:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", f"<{name}>", text)
    return without_shapes(text)


def without_shapes(text: str) -> str:
    """A free text without keys, tokens, passwords and addresses with credentials, as far as shapes show them."""
    text = _without_certain(text)
    for shape, put in _LIKELY:
        text = shape.sub(put, text)
    return _FORTY_HEX.sub(lambda found: found[0] if _is_commit(found) else HIDDEN, text)


@lru_cache(maxsize=4096)
def _without_certain(text: str) -> str:
    """The text without what can be nothing but a secret: prefixes of tokens, and addresses with credentials."""
    for shape, put in _CERTAIN:
        text = shape.sub(put, text)
    return text


def _is_commit(found: "re.Match[str]") -> bool:
    return bool(_COMMIT.search(found.string[max(0, found.start() - 20) : found.start()]))


def redacted(node: Any, field: str = "", *, shown: bool = False) -> Any:
    """Nested mappings and lists without secrets. To be called before special characters are escaped.

    `shown`: nothing reads the result back, so every text counts as free text.
    """
    match node:
        case str() if node and _FIELD.fullmatch(field):
            return node if node.startswith("${") else HIDDEN
        case str() if shown:
            return redact(node)
        case str() if field in _FROM_DATA:
            return node
        case str() if field in _WORDS_TYPED:
            return _without_secret_value(node)
        case str():
            return redact(node) if field in FREE_TEXT else _without_certain(node)
        case Mapping():
            secret = _FIELD.fullmatch(field)
            return {
                str(key): redacted(value, field if secret else str(key), shown=shown) for key, value in node.items()
            }
        case list() | tuple():
            return [redacted(value, field, shown=shown) for value in node]
    return node


def _without_secret_value(override: str) -> str:
    """KEY=VALUE without its secrets. What decides something keeps its value, as in config.yaml."""
    parts = _OVERRIDE.fullmatch(override)
    if parts is None:
        return redact(override)
    field = re.split(r"[./@]", parts["key"])[-1]
    if field in FREE_TEXT:
        return redact(override)
    value = str(redacted(parts["value"], field))
    return override[: parts.start("value")] + value


def secret_address(plain: Mapping[str, Any]) -> str | None:
    """The first field of a plain config that decides something and would be stored without its value; None for none."""
    for address, field, value in _leaves(plain, "", ""):
        if isinstance(value, str):
            lost = field not in FREE_TEXT and redacted(value, field) != value
        else:
            lost = value != 0 and _SECRET_WORD.fullmatch(field) is not None
        if lost:
            return address
    return None


def _leaves(node: Any, address: str, field: str) -> Iterator[tuple[str, str, Any]]:
    """Address, name of the field and value. Below the field of a secret each value is one."""
    match node:
        case Mapping():
            secret = _FIELD.fullmatch(field)
            for key, value in node.items():
                yield from _leaves(value, f"{address}.{key}" if address else str(key), field if secret else str(key))
        case list() | tuple():
            for value in node:
                yield from _leaves(value, address, field)
        case None | bool():
            return
        case _:
            yield address, field, node


def _secrets() -> Iterator[tuple[str, str]]:
    """Variables with the names of secrets and values of at least 8 characters that are no words or paths of files."""
    taken = {name: value for value, name in from_environment.values().items()}
    for name, value in {**os.environ, **taken}.items():
        named = name in taken or _SECRET_VARIABLE.search(name) or _is_secret_address(name, value)
        if named and len(value) >= 8 and not _is_word(value) and not os.path.exists(value):
            yield name, value


def _is_secret_address(name: str, value: str) -> bool:
    if _ADDRESS_VARIABLE.search(name) is None or "://" not in value:
        return False
    return _without_certain(value) != value or _LONG_PATH.search(value) is not None


def _is_word(value: str) -> bool:
    return len(value) < 16 and value.isalpha()
