"""The host as the planner sees it: its CPU's rate follows from what it can do."""

from pathlib import Path

import pytest
from conftest import host_cpu

from danube_sweep.config.schema import Device
from danube_sweep.planner import planned_device


@pytest.mark.parametrize(
    ("flags", "tflops"),
    [("avx2 avx512f avx512_bf16 amx_bf16 amx_tile", 0.6), ("avx2 avx512f avx512_bf16", 0.11), ("avx2", 0.03)],
)
def test_a_cpu_computes_bf16_as_fast_as_its_instructions_allow(
    flags: str, tflops: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_cpu(tmp_path, monkeypatch, flags)
    assert planned_device.planned_device(Device(accelerator="cpu")).tflops_16bit == tflops


def test_a_host_that_says_nothing_of_its_cpu_counts_as_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_device, "CPU_INFO", "/nowhere/cpuinfo")
    assert planned_device.planned_device(Device(accelerator="cpu")).tflops_16bit == 0.03
