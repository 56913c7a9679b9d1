"""The record of a probe: the rates that were measured on a device of this machine, kept in the cache. Asks no torch.

A probe predicts seconds and chooses packs. It decides no type, kernel, layout or batch, so it never changes arithmetic.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from danube_sweep import paths
from danube_sweep.config.schema import Device
from danube_sweep.decoding import Undecodable, json_of
from danube_sweep.planner.present_gpu import PresentGpu
from danube_sweep.planner.step_seconds import FP32_EFFICIENCY
from danube_sweep.storage.files import write_json

log = logging.getLogger(__name__)

PROBE_VERSION = 1
"""Raise it when the same device gives other figures."""
MEASURED = "measured here by a probe"
_RATES = {"tflops_fp32", "tflops_16bit", "efficiency", "attention_efficiency"}
_PACKAGES = ("torch", "bitsandbytes")

Key = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Probe:
    """The figures that a probe measured."""

    tflops_fp32: tuple[float, float, float]
    tflops_16bit: tuple[float, float, float]
    """Of products of a small, a middle and a large matrix with a square one, in TFLOP/s."""
    bandwidth_gb_s: float
    dequantised_g_s: float
    """4-bit weights dequantised, in billions a second."""
    launch_us: float

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Probe":
        """The probe that plain JSON holds. Raises KeyError, TypeError or ValueError for anything else."""
        values: dict[str, Any] = {}
        for one in fields(cls):
            value = found[one.name]
            numbers = tuple(value) if one.name.startswith("tflops") else (value,)
            if one.name.startswith("tflops") and len(numbers) != 3:
                raise ValueError(f"{one.name} has {len(numbers)} sizes, not 3")
            if not all(type(number) in (int, float) and 0 < number < math.inf for number in numbers):
                raise ValueError(f"{one.name}={value} is no rate")
            values[one.name] = numbers if one.name.startswith("tflops") else value
        return cls(**values)


def gpu_key(gpu: PresentGpu) -> Key:
    """All that decides the figures of a GPU: host, card, power limit, driver and versions."""
    return {
        "kind": "cuda",
        "name": gpu.name,
        "power_limit_w": gpu.power_limit_w,
        "driver": gpu.driver,
        **_of_this_host(),
    }


def cpu_key(name: str | None, threads: int | None) -> Key:
    """All that decides the figures of a CPU: host, name, cores that this process may use, threads and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = threads or _number(os.environ.get("OMP_NUM_THREADS", ""))
    return {"kind": "cpu", "name": name, "cores": cores, "threads": asked, **_of_this_host()}


@lru_cache(maxsize=1)
def _of_this_host() -> Mapping[str, str | int | None]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {"host": platform.node(), "probe": PROBE_VERSION, **versions}


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def record_of(key: Key) -> Path:
    """The file of the cache that holds the probe with this key, whether or not it is there."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return paths.cache_dir() / "probes" / f"{digest[:32]}.json"


def read_probe(key: Key) -> Probe | None:
    """The probe with this key; None if there is none, or if its record is damaged, with a warning."""
    record = record_of(key)
    try:
        found = json_of(record)
        if found["key"] != key or found["seal"] != _seal(key, found["probe"]):
            raise ValueError("its seal is broken")
        return Probe.read(found["probe"])
    except OSError:
        return None
    except (Undecodable, KeyError, TypeError, ValueError) as error:
        if record not in _told:
            log.warning("%s is damaged (%s) and not used; danube-sweep device --probe makes it again", record, error)
        _told.add(record)
        return None


_told: set[Path] = set()
"""Records whose damage this process has told."""


def write_probe(key: Key, probe: Probe) -> None:
    """Keeps a probe. Where the cache cannot be written it is not kept, with a warning."""
    from danube_sweep.errors import DiskError

    record, plain = record_of(key), json.loads(json.dumps(asdict(probe)))
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {"key": key, "probe": plain, "seal": _seal(key, plain)})
    except (OSError, DiskError) as error:
        log.warning("the probe was not kept, so the next command measures again: %s", error)
    _told.discard(record)


def _seal(key: Key, plain: Any) -> str:
    return hashlib.sha256(json.dumps([key, plain], sort_keys=True).encode()).hexdigest()[:16]


def probed(device: Device, probe: Probe | None, stated: Mapping[str, Any]) -> Device:
    """The device with a probe's figures, but for the rates if the config states any of them.

    Products take the rate of the middle size. Attention was not probed and keeps the rate that it had.
    """
    if probe is None:
        return device
    share = 1.0 if device.accelerator == "cpu" else FP32_EFFICIENCY
    in_16_bits = probe.tflops_16bit[1]
    rates: dict[str, Any] = {
        "tflops_fp32": probe.tflops_fp32[1] / share,
        "tflops_16bit": in_16_bits,
        "efficiency": 1.0,
        "attention_efficiency": min(1.0, device.tflops_16bit * device.attention_efficiency / in_16_bits),
    }
    return replace(
        device,
        **({} if _RATES & stated.keys() else rates),
        bandwidth_gb_s=probe.bandwidth_gb_s,
        dequantised_g_s=probe.dequantised_g_s,
        launch_us=probe.launch_us,
        figures=MEASURED,
    )
