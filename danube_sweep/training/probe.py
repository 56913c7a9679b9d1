"""How fast the device of this machine is: measured once, in a process of its own, and kept. Imports no torch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final

from danube_sweep.config.schema import Device
from danube_sweep.errors import ConfigError
from danube_sweep.planner.planned_device import planned_device, probe_key
from danube_sweep.planner.present_gpu import others_on_gpu
from danube_sweep.planner.probe_record import Key, Probe, read_probe, record_of, write_probe
from danube_sweep.storage.caches import alone

PROBE: Final = (sys.executable, "-m", "danube_sweep.training.measure_rates")
LONGEST_S: Final = 120.0
"""Of a probe with its imports: on a busy file system they take most of it."""


def probe_once(device: Device, say: Callable[[str], object], environment: Mapping[str, str] | None = None) -> None:
    """Probes the GPU that trials are going to use, if nobody has on this host; with a note if it cannot be done.

    A CPU is not probed unasked. `environment`: of the process that will use the GPU.
    """
    key = probe_key(device)
    if key is None or key["kind"] == "cpu" or read_probe(key) is not None:
        return
    try:
        measure(device, key, environment)
    except ConfigError as error:
        say(f"{error}; predicted seconds follow from its other figures ({planned_device(device).figures})")


def measure(device: Device, key: Key, environment: Mapping[str, str] | None = None, *, again: bool = False) -> Probe:
    """Measures the device in a child, alone on it, and keeps the result. A fresh probe of another process is taken
    instead.

    `again`: also if it was probed before. Raises ConfigError, in one line, if it cannot be measured.
    """
    name = f"{key['name'] or 'the device'}"
    with alone(record_of(key)):
        if not again and (found := read_probe(key)) is not None:
            return found
        if key["kind"] == "cuda" and (others := others_on_gpu(device.index)):
            raise ConfigError(f"{name} is not probed: {others} other process{'es use' if others > 1 else ' uses'} it")
        probe = _child(name, str(key["kind"]), device, environment)
        write_probe(key, probe)
    return probe


def _child(name: str, kind: str, device: Device, environment: Mapping[str, str] | None) -> Probe:
    variables = {**(os.environ if environment is None else environment)}
    if device.threads is not None:
        variables["OMP_NUM_THREADS"] = str(device.threads)
    try:
        done = subprocess.run(
            [*PROBE, kind, str(device.index)], env=variables, capture_output=True, text=True, timeout=LONGEST_S
        )
        if done.returncode == 0:
            return Probe.read(json.loads(done.stdout.splitlines()[-1]))
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        said = f"no answer in {LONGEST_S:.0f} s"
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    raise ConfigError(f"the probe of {name} failed: {said[:200]}")
