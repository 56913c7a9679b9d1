"""Completion in the shell while a command is typed: Hydra's answer, with our subcommands and after a comma.

`eval "$(danube-sweep -sc install=bash)"` turns it on.
"""

import io
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout

from danube_sweep import paths

LINE = "COMP_LINE"
FLAGS = ("-sc", "--shell-completion")
_OPTIONS = {"--models": "model", "--device": "device"}
"""Flags of `tonight` -> the group whose options they take."""
_TAKE_OVERRIDES = ("benchmark", "device", "init", "plan", "show", "sweep", "tonight")
"""Subcommands whose words are those of a trial."""


def is_query(arguments: Sequence[str]) -> bool:
    """Whether the shell asks for completions of a line."""
    return any(flag in arguments for flag in FLAGS) and any(word.startswith("query=") for word in arguments)


def answer(arguments: list[str], hydra: Callable[[list[str]], int], commands: Collection[str]) -> int:
    """Prints the completions of the line in COMP_LINE, separated by blanks. Returns the exit code."""
    line = os.environ.get(LINE, "")
    program, *words = line.split() or [""]
    typed = words.pop() if words and not line.endswith(" ") else ""
    first = words[0] if words else ""
    if typed.startswith("-"):
        print("--help" if "--help".startswith(typed) else "")
        return 0
    if first == "tonight" and words[-1] in _OPTIONS:
        print(*_options(_OPTIONS[words[-1]], typed))
        return 0
    if first in commands and first not in _TAKE_OVERRIDES:
        return 0  # folders and files, which the shell completes itself
    offered = [] if words else sorted(name for name in [*commands, "help"] if typed and name.startswith(typed))
    if not typed and not words:
        offered = sorted(commands)
    rest = [one for one in words[1:] if "=" in one and not one.startswith("-")] if first in commands else words
    kept, asked = _after_comma(typed)
    os.environ[LINE] = " ".join([program, *map(_one_value, rest), asked])
    told = io.StringIO()
    with redirect_stdout(told):
        code = hydra(arguments)
    field, equals, _ = asked.partition("=")
    for choice in told.getvalue().split():
        value = choice.removeprefix(f"{field}{equals}") if equals else choice
        offered.append(f"{kept}{value}" if kept else choice)
    taken = set(kept.partition("=")[2].split(","))
    print(" ".join(one for one in offered if not kept or one.removeprefix(kept) not in taken))
    return code


def _options(group: str, typed: str) -> list[str]:
    """The options of a group that go on a word, which may name some already: `a,b`."""
    before, comma, last = typed.rpartition(",")
    names = sorted(file.stem for file in (paths.conf_dir() / group).glob("*.yaml"))
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in before.split(",")]


def _after_comma(typed: str) -> tuple[str, str]:
    """The part of `model=a,b` up to its last comma, and the word to complete: `model=a,` and `model=b`."""
    field, equals, value = typed.partition("=")
    if not equals or "," not in value or value[:1] in ("[", "{", "'", '"'):
        return "", typed
    before, _, last = value.rpartition(",")
    return f"{field}={before},", f"{field}={last}"


def _one_value(word: str) -> str:
    # Of swept values the first is composed: Hydra refuses several while it completes.
    field, equals, value = word.partition("=")
    several = equals and "," in value and value[:1] not in ("[", "{", "'", '"')
    return f"{field}={value.partition(',')[0]}" if several else word
