"""`danube-sweep device`: the known facts about this machine's devices, and a probe of them. Imports no torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Device
from danube_sweep.errors import ConfigError
from danube_sweep.planner.planned_device import cpu_features, cpu_name, option_of, planned_device, probe_key
from danube_sweep.planner.present_gpu import PresentGpu, count_gpus, present_gpu
from danube_sweep.planner.probe_record import read_probe
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.probe import measure

NO_DRIVER = "GPU: none (no driver answers here); trials run on the CPU"


def show_device(overrides: Sequence[str], terminal: Terminal, *, probe: bool, config_dir: Path | None = None) -> None:
    """Shows the devices that the overrides of the group `device` allow, after a probe of each if asked.

    `config_dir`: a folder of options beside ours.

    Raises ConfigError for a mistake, for a device that is not here and was to be probed, and if every probe fails.
    """
    if others := [one for one in overrides if not one.startswith(("device=", "device."))]:
        raise ConfigError(f"{others[0]}: only the device can be chosen here: device=cpu, device.threads=1, …")
    device = Composer(config_dir=config_dir).trial(overrides).device
    shown = _devices(device)
    if probe:
        _probe(shown, terminal)
    if device.accelerator == "auto" and not any(one.accelerator == "cuda" for one in shown):
        terminal.note(NO_DRIVER)
    for one in shown:
        terminal.show(_table(one))


def _devices(device: Device) -> list[Device]:
    # With device=auto every GPU that CUDA may use, each kind once, and the CPU; with device.index that GPU alone.
    if device.accelerator != "auto":
        return [device]
    gpus: dict[PresentGpu, int] = {}
    for index in [device.index] if device.index else range(count_gpus()):
        if (gpu := present_gpu(index)) is not None:
            gpus.setdefault(gpu, index)
    return [
        *(replace(device, accelerator="cuda", index=index) for index in gpus.values()),
        replace(device, accelerator="cpu"),
    ]


def _probe(devices: Sequence[Device], terminal: Terminal) -> None:
    failed: list[ConfigError] = []
    for one in devices:
        if (key := probe_key(one)) is None:
            raise ConfigError(f"device: {one.name} cannot be probed: its figures are stated, or it is not here")
        try:
            measure(one, key, again=True)
        except ConfigError as error:
            failed.append(error)
    if len(failed) == len(devices):
        raise failed[0]
    for one_failed in failed:
        terminal.note(str(one_failed))


def _table(device: Device) -> Table:
    known, key = planned_device(device), probe_key(device)
    found = None if key is None else read_probe(key)
    gpu = present_gpu(device.index) if device.accelerator == "cuda" and key is not None else None
    rows = [("device", known.name)]
    if known.accelerator == "cpu":
        rows += [
            ("processor", cpu_name() or "unknown"),
            ("cores", str(key and key["cores"])),
            ("features", ", ".join(cpu_features()) or "none that matter here"),
        ]
    if gpu is not None:
        capability = "unknown" if gpu.capability is None else f"{gpu.capability:g}"
        power = "unknown" if gpu.power_limit_w is None else f"{gpu.power_limit_w:g} W"
        rows += [
            ("driver's name", f"{gpu.name or 'unknown'}, driver {gpu.driver or 'unknown'}"),
            ("capability", f"{capability}, power limit {power}"),
            ("table entry", f"device={option}" if (option := option_of(gpu)) else "none: its figures are a guess"),
        ]
    rows += [
        ("memory", "unknown" if known.memory_gib is None else f"{known.memory_gib:.1f} GiB"),
        ("types", ", ".join(known.types) or "unknown"),
        ("rates", f"fp32 {known.tflops_fp32:.3g} and 16-bit {known.tflops_16bit:.3g} TFLOP/s, "
                  f"{known.bandwidth_gb_s:.3g} GB/s, {known.launch_us:.3g} us a launch"),
        ("source", known.figures),
    ]  # fmt: skip
    if key is not None and found is None:
        rows.append(("probe", "not probed; danube-sweep device --probe measures it"))
    if found is not None:
        rows += [
            ("probe, fp32", f"{_sizes(found.tflops_fp32)} TFLOP/s for a small, a middle and a large product"),
            ("probe, 16-bit", f"{_sizes(found.tflops_16bit)} TFLOP/s"),
            ("probe, 4-bit", f"{found.dequantised_g_s:.3g} billion weights dequantised a second"),
        ]
    if known.cannot_run is not None:
        rows.append(("cannot run", known.cannot_run))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name, style="cyan"), Text(value))
    return table


def _sizes(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.3g}" for rate in rates)
