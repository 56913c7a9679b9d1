"""A probe of the GPU that is here: plausible figures, kept, and used by the next plan."""

from pathlib import Path

import pytest
import torch

from danube_sweep.config.schema import Device
from danube_sweep.planner import probe_record
from danube_sweep.planner.planned_device import planned_device, probe_key
from danube_sweep.planner.probe_record import read_probe
from danube_sweep.training.probe import measure

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_a_probe_measures_what_the_maker_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path))
    asked = Device(accelerator="cuda")
    before, key = planned_device(asked), probe_key(asked)
    assert key is not None and read_probe(key) is None
    found = measure(asked, key)
    assert read_probe(key) == found
    if not before.guessed:  # a tenth is clocks above the maker's
        assert 0.05 * before.tflops_16bit < found.tflops_16bit[2] < 1.1 * before.tflops_16bit
        assert 0.05 * before.tflops_fp32 < found.tflops_fp32[2] < 1.1 * before.tflops_fp32
        assert 0.2 * before.bandwidth_gb_s < found.bandwidth_gb_s < 1.1 * before.bandwidth_gb_s
    assert 1 < found.launch_us < 1000 and found.dequantised_g_s > 1
    after = planned_device(asked)
    assert after.figures == probe_record.MEASURED and after.memory_gib == before.memory_gib
