"""Folders of runs and sweeps that others made: nothing outside them is read before the user has seen it listed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from danube_sweep.config import offered_options
from danube_sweep.config.from_environment import check_received
from danube_sweep.config.identity import names_a_folder
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import path_fields
from danube_sweep.decoding import Undecodable, json_of, yaml_of
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.made_here import WITNESSES, made_here

_MOST_LISTED = 20
_STRANGE = "was not made here, or was edited since,"


def check(folder: Path, *, trust: bool) -> list[str]:
    """Lines on the files outside a folder that was not made here, for the user who trusts it.

    Raises CheckpointError for a folder that states more than a trial or takes variables of this environment. One that
    reads or writes outside itself is refused too, unless `trust` is given.
    """
    strange = [part for part in parts(folder) if not made_here(part)]
    if not strange:
        return []
    texts = [text for part in strange for text in _stated(part)]
    _refuse(folder, texts)
    found = list(dict.fromkeys([*_outside(folder, texts), *links_outside(folder)]))
    if not found:
        return []
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    listed = ", ".join(found[:_MOST_LISTED]) + more
    if not trust:
        raise CheckpointError(f"{folder} {_STRANGE} and goes outside itself: {listed}; if you mean it, --trust")
    return [f"{folder} {_STRANGE} and goes outside itself: {listed}"]


def note_on_links(folder: Path) -> list[str]:
    """A line on symbolic links that lead outside a folder that was not made here."""
    if not folder.is_dir() or all(made_here(part) for part in parts(folder)):
        return []
    found = links_outside(folder)
    return [f"{folder} {_STRANGE} and its links lead outside: {', '.join(found[:_MOST_LISTED])}"] * bool(found)


def parts(folder: Path) -> list[Path]:
    """The folder, those of the runs and sweeps in it and, of an ensemble that was made here, its members.

    Links are not followed.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        if not {*folders, *files}.isdisjoint(WITNESSES):
            found.append(Path(place))
        elif Path(place).name == "wandb":  # of W&B's client, whose files have the names of ours
            folders.clear()
    members = _members(folder) if made_here(folder) else []
    return [*found, *(one for one in members if any(os.path.lexists(one / name) for name in WITNESSES))]


def _members(folder: Path) -> list[Path]:
    members = _list(_mapping(_read(folder / "ensemble.json")).get("members"))
    return [Path(os.path.normpath(folder / str(run))) for one in members for run in _list(_mapping(one).get("runs"))]


def links_outside(folder: Path) -> list[str]:
    """Symbolic links in a folder that lead outside it, as `NAME -> TARGET`."""
    root, found = folder.resolve(), []
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root) and not _log_of_wandb(path):
                found.append(f"{path.relative_to(root)} -> {os.readlink(path)}")
    return found


def _log_of_wandb(link: Path) -> bool:
    # W&B's client links its own log files from each run. They are never read.
    return link.suffix == ".log" and link.parent.name == "logs" and link.parent.parent.parent.name == "wandb"


Stated = tuple[str, Any]
"""`group.field` and its value; the name is "" for a value outside the fields."""


def _stated(folder: Path) -> Iterator[Stated]:
    """The statements in the files of a run or a sweep that decide which other files are read."""
    config = _mapping(_read(folder / "config.yaml"))
    for group, fields in config.items():
        yield from (
            ((f"{group}.{name}", value) for name, value in fields.items())
            if isinstance(fields, dict)
            else [(str(group), fields)]
        )
    sweep, trial = _mapping(_read(folder / "sweep.json")), _mapping(_read(folder / "trial.json"))
    search = _mapping(sweep.get("search"))
    asked = _mapping(_mapping(_read(folder / "night.json")).get("asked"))
    words = [*_list(search.get("fixed")), *_list(trial.get("overrides")), *_list(asked.get("overrides"))]
    for override in words:
        key, _, value = str(override).lstrip("+~").partition("=")
        yield key, value.strip("'\"")
    yield from (("data.path", asked[name]) for name in ("train", "test", "like") if asked.get(name))
    models = map(str, _list(asked.get("models")))
    yield from (("model.path", name) for name in models if "/" in name or Path(name).is_dir())  # others are options
    for key, space in _mapping(search.get("space")).items():
        yield from ((str(key).lstrip("+~"), value) for value in _list(_mapping(space).get("values")) or [""])
    yield from (("ensemble.runs", str(run)) for run in _members(folder))
    if sweep.get("config_dir") is not None:
        yield "config_dir", str(sweep["config_dir"])


def _read(file: Path) -> Any:
    # A damaged file is reported by the code that needs its content.
    if file.is_symlink():
        return None
    try:
        return yaml_of(file) if file.suffix == ".yaml" else json_of(file)
    except (OSError, Undecodable):
        return None


def _mapping(node: Any) -> Mapping[Any, Any]:
    return node if isinstance(node, dict) else {}


def _list(node: Any) -> Sequence[Any]:
    return node if isinstance(node, list) else []


def _refuse(folder: Path, texts: Sequence[Stated]) -> None:
    for key, value in texts:
        if key.startswith("hydra"):
            raise CheckpointError(f"{folder}: {key} belongs to Hydra and is no part of a trial; remove it")
        try:
            check_received(f"{folder}: {key}", value)
        except ConfigError as error:
            raise CheckpointError(str(error)) from error


def _outside(folder: Path, texts: Sequence[Stated]) -> Iterator[str]:
    root, kinds = folder.resolve(), _path_kinds()
    for key, value in texts:
        group = key.partition(".")[0]
        whole = group == key and group in kinds and str(value).startswith("{")  # data={path:…}
        kind = (
            "files"
            if whole or key in ("config_dir", "ensemble.runs")
            else kinds.get(group, {}).get(key.partition(".")[2])
        )
        for path in _list(value) or [value]:
            if kind is not None and isinstance(path, str) and _leaves(path, kind, root):
                yield f"{key}={path}"


def _path_kinds() -> dict[str, dict[str, str]]:
    """By group, the fields that hold paths and the kind of file that each names."""
    options = {group: offered_options.options(group).values() for group in OPTIONS}
    return {
        group: {name: kind for schema in schemas for name, kind in path_fields(schema).items()}
        for group, schemas in options.items()
    }


def _leaves(path: str, kind: str, root: Path) -> bool:
    place = Path(path).expanduser()
    if path in ("", "null") or (kind == "folder" and not names_a_folder(path) and not place.is_dir()):
        return False  # a name on the hub
    return "${" in path or path[:1] in "[{" or not place.absolute().resolve().is_relative_to(root)
