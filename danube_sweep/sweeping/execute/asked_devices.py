"""The devices that the trials of a sweep ask for."""

from contextlib import suppress
from typing import Any

from danube_sweep.config.schema import Config, Device
from danube_sweep.decoding import Undecodable, yaml_of
from danube_sweep.errors import ConfigError
from danube_sweep.storage.sweep_folder import Entry, SweepFolder


def together(folder: SweepFolder, drawn: Config | None) -> int | str:
    """The device.count of all trials. Raises ConfigError if it differs."""
    counts = of_devices("count", folder, drawn)
    if len(counts) > 1:
        raise ConfigError(f"device.count differs among trials ({', '.join(map(str, counts))}); give all the same one")
    return next(iter(counts), 1)


def of_devices(field: str, folder: SweepFolder, drawn: Config | None) -> set[Any]:
    """The values of a field of device among the trials; `drawn` is a trial of a search, whose folder has none yet."""
    if drawn is not None:
        return {getattr(drawn.device, field)}
    found = (_of_device(field, entry) for entry in folder.entries() if entry.hash is not None)
    return {one for one in found if one is not None}


def _of_device(field: str, entry: Entry) -> Any:
    # A config that is damaged beyond repair is reported when its trial would begin. An older one may lack the field.
    with suppress(OSError, Undecodable, KeyError, TypeError):
        return yaml_of(entry.folder.config)["device"].get(field, getattr(Device(), field))
    return None
