"""An experiment file from guesses: YAML that Hydra finds by --config-dir, with the reason beside each line."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from danube_sweep.composer import parse_sweep
from danube_sweep.config.explain import PATHS
from danube_sweep.config.neutral_text import neutral
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.data.recognise.guess import Guess
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.paths import conf_dir, from_here
from danube_sweep.storage.files import whole_file, writing
from danube_sweep.storage.outputs import check_place, refuse_existing

FOLDER = "experiment"


def check_experiment_file(target: Path, read: Sequence[Path], *, overwrite: bool) -> None:
    """Raises ConfigError for a place where Hydra finds no experiment, DiskError for one that must not be written."""
    if target.suffix != ".yaml" or target.absolute().parent.name != FOLDER:
        raise ConfigError(
            f"-o {target}: an experiment is a .yaml file in a folder named {FOLDER}; "
            f"give -o {target.parent / FOLDER / (target.stem or 'mine')}.yaml"
        )
    if (conf_dir() / FOLDER / target.name).is_file():
        raise ConfigError(
            f"-o {target}: {FOLDER}={target.stem} is one of danube-sweep's own, which would be used; give another name"
        )
    outer = target.absolute().parent.parent
    if not outer.is_dir():
        raise DiskError(f"-o {target}: {from_here(outer)} is no folder; make it, or choose another place")
    if target.parent.is_dir():
        check_place(target, "-o", read)
        refuse_existing(target, "-o", overwrite=overwrite)


def write_experiment_file(target: Path, guesses: Sequence[Guess], source: str) -> list[str]:
    """Writes the guesses as an experiment, and returns the command that uses it. Raises DiskError."""
    outer = from_here(target.absolute().parent.parent)
    command = ["danube-sweep", "--config-dir", str(outer), f"{FOLDER}={target.stem}"]
    with writing(target, "choose another place by -o"):
        target.parent.mkdir(exist_ok=True)
    with whole_file(target, "choose another place by -o") as temporary:
        temporary.write_text(_text(guesses, source, command), encoding="utf-8")
    return command


def _text(guesses: Sequence[Guess], source: str, command: Sequence[str]) -> str:
    parsed = parse_sweep([guess.word for guess in guesses])
    groups, fields = [], _Node()
    for guess, override in zip(guesses, parsed, strict=True):
        value = _written(guess, override.value())
        if guess.field in (*OPTIONS, *SWEEP_OPTIONS):
            groups.append(f"  - override /{guess.field}: {value} # {neutral(guess.reason)}")
        else:
            fields.add(guess.field.split("."), f"{value} # {neutral(guess.reason)}")
    return "\n".join(
        [
            "# @package _global_",
            neutral(f"# Written by danube-sweep init {source}. Use it by {shlex.join(command)}"),
            "defaults:",
            *groups,
            "",
            *fields.lines(),
            "",
        ]
    )


def _written(guess: Guess, value: Any) -> str:
    if guess.field in PATHS and isinstance(value, str) and "${" not in value:
        value = str(Path(value).expanduser().absolute())
    text = json.dumps(value, ensure_ascii=False)
    return text if guess.given else text.replace("${", "\\\\${")


@final
class _Node:
    """The fields of an experiment, nested as their names are."""

    def __init__(self) -> None:
        self._inner: dict[str, _Node | str] = {}

    def add(self, names: Sequence[str], value: str) -> None:
        """A value under its names, from the outermost to its own."""
        if len(names) == 1:
            self._inner[names[0]] = value
            return
        inner = self._inner.setdefault(names[0], _Node())
        assert isinstance(inner, _Node)
        inner.add(names[1:], value)

    def lines(self, indent: str = "") -> list[str]:
        """As YAML."""
        found = []
        for name, value in self._inner.items():
            if isinstance(value, _Node):
                found += [f"{indent}{name}:", *value.lines(f"{indent}  ")]
            else:
                found.append(f"{indent}{name}: {value}")
        return found
