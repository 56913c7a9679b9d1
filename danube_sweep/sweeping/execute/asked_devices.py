"""The devices that the trials of a sweep ask for."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from danube_sweep.config.schema import Config, Device
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import load_config
from danube_sweep.config.validate.check_device import check_count, validate_device
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.sweep_folder import Entry, SweepFolder

COUNT: Final = "device.count="
"""The one setting of a sweep's trials that `resume` takes: it is in no hash, and decides the slots alone."""
SHARDING: Final = "device.sharding="
"""A setting that `resume` takes for a run, with the count."""


def together(folder: SweepFolder, drawn: Config | None, asked: Collection[int | str] = ()) -> int | str:
    """The device.count of all trials: the one that was `asked` for now, else that of the trials that are open.

    Raises ConfigError if it differs.
    """
    counts = set(asked)
    if not counts and drawn is not None:
        counts = {drawn.device.count}
    if not counts:
        counts = {one for entry in _open(folder) if (one := _of_device("count", entry)) is not None}
    if not counts:  # trials that confirm the best are still to come
        counts = {*list(of_devices("count", folder, drawn))[:1]}
    if len(counts) > 1:
        found = sorted(map(str, counts))
        raise ConfigError(
            f"device.count differs among trials ({', '.join(found)}); give all the same one, as in {COUNT}{found[0]}"
        )
    return next(iter(counts), 1)


def of_devices(field: str, folder: SweepFolder, drawn: Config | None) -> set[Any]:
    """The values of a field of device among the trials; `drawn` is a trial of a search, whose folder has none yet."""
    if drawn is not None:
        return {getattr(drawn.device, field)}
    found = (_of_device(field, entry) for entry in folder.entries() if entry.hash is not None)
    return {one for one in found if one is not None}


def with_devices(config: Config, settings: Collection[str]) -> Config:
    """The config with other devices: each setting is `device.count=2`, `device.count=all` or `device.sharding=none`.

    Raises ConfigError for one that cannot be.
    """
    device = config.device
    for setting in settings:
        if setting.startswith(SHARDING):
            device = replace(device, sharding=setting.removeprefix(SHARDING))
        else:
            device = replace(device, count=_count_in(setting))
    changed = replace(config, device=device)
    validate_device(changed)
    return changed


def asked_count(folder: SweepFolder, settings: Collection[str]) -> set[int | str]:
    """The device.count among the settings of a resumed sweep. Raises ConfigError for one that cannot be."""
    asked: set[int | str] = set()
    for setting in settings:
        if not setting.startswith(COUNT):
            continue
        count = _count_in(setting)
        check_count(Device(count=count))
        asked = {count}
        for entry in _open(folder)[:1]:
            with suppress(CheckpointError):  # reported when its trial would begin
                own = [f"{SHARDING}none"] if asked == {1} else []  # on one device it divides nothing, as a note tells
                with_devices(load_config(entry.folder.config), [setting, *own])
    return asked


def _count_in(setting: str) -> int | str:
    said = setting.removeprefix(COUNT)
    return int(said) if said.isdecimal() else said


def _open(folder: SweepFolder) -> list[Entry]:
    entries = [entry for entry in folder.entries() if entry.hash is not None]
    return [entry for entry in entries if entry.folder.result_fields().get("state") not in COMPLETE]


def _of_device(field: str, entry: Entry) -> Any:
    # A config that is damaged beyond repair is reported when its trial would begin. An older one may lack the field.
    with suppress(OSError, Undecodable, KeyError, TypeError):
        return yaml_of(entry.folder.config)["device"].get(field, getattr(Device(), field))
    return None
