"""The words of a command line, before Hydra sees them: flags and first words that there are not, in our words."""

import difflib
from collections.abc import Collection, Sequence

from danube_sweep.config.explain import in_our_words
from danube_sweep.config.facts.other_names import COMMAND_NAMES
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.errors import ConfigError

_ELSEWHERE = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
"""Hydra's flags that take options from elsewhere than the package."""
_SHOW = ("--cfg", "-c")
_MANY = ("-m", "--multirun")
FLAGS = (
    *_MANY, "--dry-run", "--help", "-h", "--version", "--resolve", "--hydra-help", "--run", "-r", *_ELSEWHERE, *_SHOW,
    "--package", "-p", "--experimental-rerun", "--info", "-i", "--shell-completion", "-sc",
)  # fmt: skip
_SHOWN = "-m, --dry-run, --help, --version, --cfg job, --resolve, --config-dir DIR"


def check_words(words: Sequence[str], commands: Collection[str]) -> None:
    """Raises ConfigError, in one line, for a flag that there is not and for a first word that is another tool's."""
    first = words[0] if words else ""
    if first and "=" not in first and first[0] not in "-+~":
        _check_first(first, commands)
    for place, word in enumerate(words):
        if word.startswith("-") and not _is_flag(word):
            raise ConfigError(_unknown_flag(word, words[place + 1 :]))


def sweep_first(words: Sequence[str]) -> list[str]:
    """The words with -m before all others: Hydra takes no override behind it if there was one before it."""
    many = [word for word in words if word in _MANY]
    return [*many[:1], *(word for word in words if word not in _MANY)]


def _check_first(word: str, commands: Collection[str]) -> None:
    if (ours := COMMAND_NAMES.get(word.lower())) is not None:
        raise ConfigError(f"{word}: no such command; {ours}")
    if close := difflib.get_close_matches(word, commands, n=1, cutoff=0.75):
        raise ConfigError(
            f"{word}: no such command; did you mean danube-sweep {close[0]}? there are {', '.join(commands)}"
        )


def only_shown(words: Sequence[str]) -> list[str] | None:
    """The overrides of a trial whose config is only shown; None for any other command."""
    flags = {word.partition("=")[0] for word in words}
    if not flags.intersection(_SHOW) or flags.intersection((*_MANY, *_ELSEWHERE)):
        return None
    return [word for word in words if not word.startswith("-") and word not in ("job", "hydra", "all")]


def _is_flag(word: str) -> bool:
    return word.partition("=")[0] in FLAGS


def _unknown_flag(word: str, following: Sequence[str]) -> str:
    flag, equals, value = word.partition("=")
    if not equals:
        value = following[0] if following and not following[0].startswith("-") and "=" not in following[0] else "true"
    name = flag.lstrip("-").replace("-", "_")
    close = difflib.get_close_matches(flag.replace("_", "-"), FLAGS, n=1, cutoff=0.8)
    if close:
        return f"{flag}: no such flag; did you mean {close[0]}? flags are {_SHOWN}"
    group = name.partition(".")[0]
    ours = f"write {name}={value}" if group in (*OPTIONS, *SWEEP_OPTIONS) else in_our_words(name, value)
    if ours is not None:
        return f"{flag}: no such flag; options have no dashes: {ours}"
    return f"{flag}: no such flag; options have no dashes: GROUP=OPTION or FIELD=VALUE; flags are {_SHOWN}"
