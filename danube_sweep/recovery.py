"""A trial whose trial.json or config.yaml is damaged, put together again from what else its folder holds.

The one file holds the trial's overrides, the other what they mean, and its hash says whether both belong together.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

from danube_sweep import paths
from danube_sweep.composer import Composer
from danube_sweep.config.identity import HASH_VERSION, trial_hash
from danube_sweep.config.schema import Config, WandbTracking
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import CheckpointError, UserError
from danube_sweep.storage.checkpoints_by_step import Checkpoints
from danube_sweep.storage.field_types import ADJUSTED
from danube_sweep.storage.files import set_aside
from danube_sweep.storage.folder_names import hash_in, number_in
from danube_sweep.storage.locks import is_held
from danube_sweep.storage.ownership import Kind, remove_temporaries
from danube_sweep.storage.run_folder import RunFolder, readable
from danube_sweep.storage.shared_files import remove_left_over_copies
from danube_sweep.storage.sweep_folder import Damaged, Entry, SweepFolder

Note = Callable[[str], None]
SECTIONS: Final = frozenset(
    ("model", "precision", "lora", "head", "optimizer", "schedule", "data", "trainer", "device", "tracking")
)
"""What every version has written into a config.yaml, the last of it last."""


def tracked(config: Config, sweep: Path, settled: Mapping[str, str]) -> Config:
    """The trial with the sweep's own W&B group and mode, where it leaves them open."""
    tracking = config.tracking
    if isinstance(tracking, WandbTracking):
        if tracking.group is None:
            tracking.group = settled.get("group", "_".join(sweep.parts[-2:]))
        if tracking.mode == "auto":
            tracking.mode = settled.get("mode", "auto")
    return config


@lru_cache(maxsize=4)
def _composer(config_dir: Path | None, config_name: str) -> Composer:
    # Its first composition takes a second.
    return Composer(config_dir=config_dir, config_name=config_name)


@final
class Recovery:
    """Finds again what damaged files of a sweep's trials held; nothing is read before one is damaged."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._composer: Composer | None = None
        self._siblings: list[Entry] | None = None
        self._configs: dict[Path, dict[str, Any]] = {}

    def config(self, overrides: Sequence[str], identity: str, version: int) -> Config | None:
        """What these overrides mean in this sweep, if that is still the trial with this hash."""
        try:
            described = self._folder.read() if self._folder.file.is_file() else {}
            if self._composer is None:
                place, name = described.get("config_dir"), described.get("config_name", "config")
                self._composer = _composer(None if place is None else Path(place), str(name))
            config = self._composer.trial(overrides)
            same = trial_hash(config, version) == identity
        except (UserError, TypeError):
            return None
        settled = described.get("tracking", {})
        return tracked(config, self._folder.path, settled if isinstance(settled, dict) else {}) if same else None

    def entry(self, damaged: Damaged) -> Entry | None:
        """The trial as its trial.json stated it; None for a cell that was no trial, or if nothing states its hash.

        Overrides that do not lead to its hash are left out, the last resort: the trial itself is in its config.yaml.
        """
        with suppress(UserError):
            config = load_config(damaged.folder.config)
            identity, version = self._identity(damaged.folder, config)
            number, digits = number_in(damaged.path.name), hash_in(damaged.path.name)
            if number is None or digits is None or not identity.startswith(digits):
                return None
            words = self._overrides(plain_config(config))
            if self.config(words, identity, version) is None:
                words = []
            confirms = damaged.path.name in self._confirming()
            return Entry(number, identity, words, damaged.path, confirms=confirms, hash_version=version)
        return None

    def _identity(self, folder: RunFolder, config: Config) -> tuple[str, int]:
        stated = folder.stated_environment()
        if stated is not None and isinstance(stated.get("trial"), str):
            return stated["trial"], stated.get("hash_version", 1)
        version = max((one.hash_version for one in self._others()), default=HASH_VERSION)
        return trial_hash(config, version), version

    def _others(self) -> list[Entry]:
        if self._siblings is None:
            self._siblings = [entry for entry in self._folder.entries() if entry.hash is not None]
        return self._siblings

    def _confirming(self) -> list[Any]:
        found = readable(self._folder.confirmed, {"trials": (list,)}) or {}
        return list(found.get("trials", []))

    def _overrides(self, config: dict[str, Any]) -> list[str]:
        """What the other trials set, as this one has it."""
        texts: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for entry in self._others():
            for text in entry.overrides:
                texts.setdefault(text.lstrip("+").partition("=")[0], []).append((text, self._config(entry)))
        found = (_same(key, told, config) for key, told in texts.items())
        return [text for text in found if text is not None]

    def _config(self, entry: Entry) -> dict[str, Any]:
        if entry.path not in self._configs:
            self._configs[entry.path] = {}
            with suppress(CheckpointError):
                self._configs[entry.path] = plain_config(load_config(entry.folder.config))
        return self._configs[entry.path]


def _same(key: str, told: Sequence[tuple[str, dict[str, Any]]], config: dict[str, Any]) -> str | None:
    """The override of another trial that has the same there, else one with this trial's own value."""
    mine = _at(config, key)
    for text, other in told:
        if other and _at(other, key) == mine:
            return text
    return f"{key}={mine}" if isinstance(mine, int | float | str) else None


def _at(node: Any, key: str) -> Any:
    for word in key.split("."):
        node = node.get(word) if isinstance(node, dict) else None
    return node


# --------------------------------------------------------------------------------------------------------- mending


def mend(folder: SweepFolder, note: Note) -> None:
    """Repairs what is damaged in the folders of a sweep's trials, or sets it aside; each in one line to `note`.

    Damaged files are kept beside the new ones. Also removes what killed processes left half-written. To be called
    while the sweep is `locked`. Raises DiskError, and CheckpointError for a file that cannot be read: it may be whole.
    """
    recovery = Recovery(folder)
    for damaged in folder.damaged():
        if damaged.unread:
            raise _unread(damaged.folder.trial, damaged.reason)
    remove_temporaries(folder.path, Kind.sweep)
    remove_left_over_copies(folder.path)
    for damaged in folder.damaged():
        _mend_trial(folder, damaged, recovery, note)
    for entry in folder.entries():
        if is_held(entry.folder.lock) or is_held(entry.folder.claim):
            continue
        remove_temporaries(entry.path, Kind.run)
        if entry.hash is not None and not _is_whole(entry.folder.config):
            mended_config(folder, entry, note, recovery)
        if entry.folder.adjusted.is_file() and readable(entry.folder.adjusted, ADJUSTED) is None:
            _drop_adjusted(entry, note)


def mended_config(folder: SweepFolder, entry: Entry, note: Note, recovery: Recovery | None = None) -> Config | None:
    """The config that an entry's overrides lead to, written in the place of its damaged one; None if it is not known.

    Raises DiskError.
    """
    config = (recovery or Recovery(folder)).config(entry.overrides, str(entry.hash), entry.hash_version)
    if config is None:
        return None
    kept = f"; the damaged one is {set_aside(entry.folder.config).name}" if entry.folder.config.exists() else ""
    folder.write_config(entry, config)
    note(f"{entry.path.name}: config.yaml was damaged and is written anew from the overrides in trial.json{kept}")
    return config


def _mend_trial(folder: SweepFolder, damaged: Damaged, recovery: Recovery, note: Note) -> None:
    entry = recovery.entry(damaged)
    aside = set_aside(damaged.folder.trial).name
    said = f"{damaged.path.name}: trial.json was damaged ({damaged.reason})"
    if entry is not None:
        folder.write_trial(entry)
        note(f"{said} and is written anew from config.yaml; the damaged one is {aside}")
        return
    note(
        f"{said}, no other file states what it held, and it is no trial of this sweep any more: its folder is kept, "
        f"with {aside}; the sweep's own command with "
        f"hydra.sweep.dir={paths.from_here(folder.path)} adds the trial again"
    )


def _drop_adjusted(entry: Entry, note: Note) -> None:
    # Steps of another micro-batch would mix two orders of rounding.
    aside = set_aside(entry.folder.adjusted).name
    again = ""
    with suppress(CheckpointError):  # a damaged checkpoints.json: the trial tells when it begins
        if entry.folder.result_fields().get("state") not in COMPLETE and entry.folder.checkpoints.is_dir():
            kept = Checkpoints(entry.folder.checkpoints).set_aside("of-another-micro-batch")
            again = f", and the trial begins again; its checkpoints are in {kept}"
    note(f"{entry.path.name}: adjusted.json was damaged: the micro-batch is that of config.yaml{again} ({aside})")


def _is_whole(file: Path) -> bool:
    # A file that was cut short may still be valid YAML, with values cut short, but it has lost what comes last.
    try:
        found = yaml_of(file)
    except (FileNotFoundError, Undecodable):
        return False
    except OSError as error:
        raise _unread(file, f"it cannot be read: {error.strerror}") from error
    return isinstance(found, dict) and found.keys() >= SECTIONS


def _unread(file: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{file}: {reason}; it may be whole, so nothing is changed: let it be read, then go on")
