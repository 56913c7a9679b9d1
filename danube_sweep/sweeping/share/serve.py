"""The executor of the trials that several agents of this machine hand over: a process of its own per sweep folder."""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node

from filelock import FileLock, Timeout

from danube_sweep.config.schema import Device, Sweep
from danube_sweep.config.validate import AUTO
from danube_sweep.errors import ConfigError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.execute.executor import Executor
from danube_sweep.sweeping.execute.slots import Slots, find_slots
from danube_sweep.sweeping.share.agent_command import named_command
from danube_sweep.sweeping.share.executor_settings import settings_of
from danube_sweep.sweeping.share.handed_source import HandedSource
from danube_sweep.sweeping.share.meeting_place import EXECUTOR, socket_of
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tracking import SHARED
from danube_sweep.training.probe import probe_once
from danube_sweep.training.signals import StopRequest


def serve(sweep: Path, expected: int | None, changes: Sequence[str], terminal: Terminal) -> None:
    """Trains what is handed over until nothing has been for `IDLE_S` seconds, or a stop is requested.

    `expected`: how many agents hand trials over, None if nobody knows. An executor that a `danube-sweep agent` keeps
    ends with that command, as soon as nothing trains.

    Returns at once if the sweep has an executor. Raises ConfigError for a wrong setting or a folder of sockets that is
    not this user's alone, DiskError.
    """
    folder, settings, path = SweepFolder(sweep.absolute()), settings_of(changes), socket_of(sweep)
    lock = FileLock(path.with_suffix(".lock"), timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:  # the process of another trial was faster
        return
    source = HandedSource(folder, expected, named_command())
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_BASE_URL"]:
        del os.environ[name]  # no run is given out to this process
    os.environ[SHARED] = "1"
    try:
        with StopRequest() as stop, _named(folder, path), _listening(path, source, stop):
            first = source.first(stop)
            if first is not None:
                try:
                    slots = _slots(settings, first.device, terminal)
                except ConfigError as error:
                    source.refuse(str(error))
                    raise
                _train(source, settings, slots, terminal, stop)
    finally:
        lock.release()


def _slots(settings: Sweep, device: Device, terminal: Terminal) -> Slots:
    if device.count != AUTO:
        return find_slots(settings, {device.accelerator}, device.count)
    slots = find_slots(settings, {device.accelerator})
    if len(slots.environments) > 1:
        terminal.note(f"device.count={AUTO}: a GPU for each trial, as the agents bring one after the other")
    return slots


def _train(source: HandedSource, settings: Sweep, slots: Slots, terminal: Terminal, stop: StopRequest) -> None:
    if not slots.on_cpu:
        probe_once(Device(), terminal.note, slots.environment(0))
    Executor(source, settings, slots, terminal, stop).run()


@contextmanager
def _listening(path: Path, source: HandedSource, stop: StopRequest) -> Iterator[None]:
    with suppress(FileNotFoundError):
        path.unlink()  # of an executor that was killed
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(path))
        path.chmod(0o600)
        place.listen(64)
        threading.Thread(target=source.listen, args=(place,), daemon=True).start()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            place.shutdown(socket.SHUT_RDWR)
            source.close(stopped=stop())


@contextmanager
def _named(folder: SweepFolder, path: Path) -> Iterator[None]:
    file = folder.path / EXECUTOR
    write_json(file, {"socket": str(path), "process": os.getpid(), "host": node()})
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
