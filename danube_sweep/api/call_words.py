"""The overrides of a call: strings as on the command line, without its flags."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from danube_sweep.errors import ConfigError
from danube_sweep.os_errors import as_ours

RUN_DIR, SWEEP_DIR = "hydra.run.dir=", "hydra.sweep.dir="


def checked_words(overrides: Sequence[Any], *, takes: Sequence[str] = ()) -> list[str]:
    """The overrides of a call. Raises ConfigError for what is no text, a flag, or Hydra's and not in `takes`."""
    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(f"{word!r}: overrides are strings, each its own argument, like 'lora.rank=8'")
        if word.startswith("-"):
            raise ConfigError(f"{word}: flags belong to the command line; here are ds.plan, ds.train and ds.sweep")
        if word.startswith(("hydra.", "hydra/")) and not word.startswith(tuple(takes)):
            known = f"here only {' and '.join(takes)}" if takes else "leave it out here"
            raise ConfigError(f"{word}: belongs to Hydra's application, danube-sweep; {known}")
    return list(overrides)


def split_folder(
    words: Sequence[str], key: str, folder: str | os.PathLike[str] | None
) -> tuple[list[str], Path | None]:
    """The words without `key`, and the folder that it or the argument names. Raises ConfigError for both."""
    named = [word.removeprefix(key) for word in words if word.startswith(key)]
    if named and folder is not None:
        raise ConfigError(f"folder={folder}: {key}{named[-1]} names one too; leave one of them out")
    place = named[-1].strip("'\"") if named else folder
    kept = [word for word in words if not word.startswith(key)]
    return kept, None if place is None else path_of(place, "folder")


def path_of(value: Any, name: str) -> Path:
    """The path that an argument gives. Raises ConfigError for what is none."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}= takes a path, got {value!r}; give a string or a pathlib.Path")
    return Path(value)


@contextmanager
def our_errors() -> Iterator[None]:
    """Errors of the operating system, of parsers and decoders leave the block as ours, as the command prints them."""
    try:
        yield
    except Exception as error:
        if (ours := as_ours(error)) is None or ours is error:
            raise
        raise ours from error


@contextmanager
def as_command(*words: str) -> Iterator[None]:
    """In the block this process was started by the command that does the same: it is on record in what is written."""
    before = sys.argv
    sys.argv = ["danube-sweep", *words]
    try:
        yield
    finally:
        sys.argv = before
