"""Where a command's results go, settled before Hydra sees the command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from danube_sweep.composer import Composer
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.storage.folder_names import SWEEPS, sweep_folder_name
from danube_sweep.sweeping.entry.wandb_agent import check_parameters, refuse_multirun, trial_words, under_agent
from danube_sweep.sweeping.propose.grid_cells import depends_on

LOOKING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--help", "-h")
"""Hydra's flags that show something and train nothing."""
SWEEP_DIR, RUN_DIR = "hydra.sweep.dir=", "hydra.run.dir="
_CONFIG_FLAGS = {"--config-dir": "folder", "-cd": "folder", "--config-name": "name", "-cn": "name"}

_HELD: ContextVar[tuple[str, ...]] = ContextVar("held", default=())


def held() -> list[str]:
    """The overrides of a `-m` command that were held back from Hydra, for our sweepers to put into every cell."""
    return list(_HELD.get())


@contextmanager
def placed(arguments: list[str]) -> Iterator[list[str]]:
    """The command with its folder: a fresh sweep folder for -m, the trial's own under a W&B agent, else unchanged.

    Also turns --dry-run into its setting, and holds back overrides of groups in a sweep, which Hydra would refuse
    (`held`). A fresh folder that stayed empty is removed. Raises ConfigError for -m under an agent and for --dry-run
    without -m.
    """
    words = [word for word in arguments if word != "--dry-run"]
    dry, multirun = len(words) < len(arguments), any(word in ("-m", "--multirun") for word in words)
    if dry and not multirun:
        raise ConfigError("--dry-run shows the trials of a sweep; give -m too, or --cfg job to see one trial")
    if multirun:
        refuse_multirun()
    if under_agent():
        check_parameters()
    with _holding(words if multirun else []) as kept:
        words = [word for word in words if word not in kept]
        with _placed(words, dry=dry, multirun=multirun) as complete:
            yield complete


@contextmanager
def _holding(words: list[str]) -> Iterator[list[str]]:
    # Hydra composes a sweep once with everything that is not swept. data.path is no field of the default data, and one
    # of every data=arena,table or experiment=a,b: so fields of swept groups are left to the cells.
    swept = {word.partition("=")[0] for word in words if _chooses_several(word)}
    sweepers = [word for word in words if word.startswith("hydra/sweeper=")]
    ours = all(word in ("hydra/sweeper=grid", "hydra/sweeper=optuna") for word in sweepers)
    kept = [word for word in words if ours and not word.startswith(("+", "~")) and depends_on(word, swept)]
    token = _HELD.set(tuple(kept))
    try:
        yield kept
    finally:
        _HELD.reset(token)


def _chooses_several(word: str) -> bool:
    if word.startswith("-"):
        return False
    with suppress(HydraException):  # Hydra reports words that are no overrides
        return OverridesParser.create().parse_overrides([word])[0].is_sweep_override()
    return False


@contextmanager
def _placed(words: list[str], *, dry: bool, multirun: bool) -> Iterator[list[str]]:
    looks = ["sweep.dry_run=true"] if dry else []
    if multirun and not any(word.lstrip("+").startswith(SWEEP_DIR) for word in words):
        with fresh_sweep_dir(exists=not dry) as folder:
            yield _with_overrides(words, [f"{SWEEP_DIR}{folder}", *looks])
    elif multirun:
        yield _with_overrides(words, looks)
    elif under_agent() and not any(
        word.lstrip("+").startswith(RUN_DIR) or word.partition("=")[0] in LOOKING for word in words
    ):
        place, name, overrides = _without_flags(words)
        own = None if place is None else Path(place).absolute()
        composer = Composer(config_dir=own, config_name=name or "config")
        yield _with_overrides(words, trial_words(composer.trial(overrides), overrides))
    else:
        yield words


def _with_overrides(words: list[str], more: list[str]) -> list[str]:
    # Hydra takes overrides in one row: a flag between them would end it.
    last = max((place for place, word in enumerate(words) if "=" in word and not word.startswith("-")), default=None)
    place = len(words) if last is None else last + 1
    return [*words[:place], *more, *words[place:]]


def _without_flags(words: list[str]) -> tuple[str | None, str | None, list[str]]:
    """The folder and the name of Hydra's flags for a config of one's own, if any, and the overrides."""
    found: dict[str, str] = {}
    rest = iter(words)
    overrides = []
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in _CONFIG_FLAGS:
            found[_CONFIG_FLAGS[flag]] = value if equals else next(rest, "")
        elif not word.startswith("-"):
            overrides.append(word)
    return found.get("folder"), found.get("name"), overrides


@contextmanager
def fresh_sweep_dir(*, exists: bool = True) -> Iterator[Path]:
    """A folder multirun/<date>/<time> that no other process has: made here, and removed again if it stays empty.

    With `exists=False` nothing is made. Raises DiskError if it cannot be made.
    """
    folder = sweep_folder_name(datetime.now())
    if not exists:
        yield folder
        return
    try:
        folder = _claimed(folder)
    except OSError as error:
        raise DiskError(f"hydra.sweep.dir: {error.filename} cannot be made: {error.strerror}; give another") from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            for empty in (folder, folder.parent, SWEEPS):
                os.rmdir(empty)


def _claimed(folder: Path) -> Path:
    # mkdir is the one step that two processes cannot both do. A third may remove the day's folder while it is empty.
    number = 1
    while True:
        own = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        own.parent.mkdir(parents=True, exist_ok=True)
        try:
            own.mkdir()
            return own
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            continue
