"""The device that a run is on."""

import pytest
import torch

from danube_sweep.errors import ConfigError
from danube_sweep.training.device import check_kernels

CUDA_12_6 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CUDA_13_0 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
"""As https://github.com/pytorch/pytorch/blob/main/RELEASE.md lists them for torch 2.11."""
CARDS = [(5, 2), (6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)]


@pytest.mark.parametrize("built_for", [CUDA_12_6, CUDA_13_0, ["gfx942"], []], ids=["12.6", "13.0", "ROCm", "none"])
def test_a_gpu_without_kernels_is_refused_where_torch_warns(built_for: list[str]) -> None:
    codes = [torch.cuda._extract_arch_version(one) for one in built_for if one.startswith("sm_")]
    for major, minor in CARDS:
        runs = any(torch.cuda._code_compatible_with_device(10 * major + minor, code) for code in codes)
        if runs or not codes:
            check_kernels((major, minor), built_for, "a card")
            continue
        with pytest.raises(ConfigError, match=f"no kernels for a card .compute capability {major}.{minor}, "):
            check_kernels((major, minor), built_for, "a card")


def test_what_is_later_than_all_kernels_runs_by_ptx_alone() -> None:
    check_kernels((13, 0), CUDA_13_0, "a card")
    with pytest.raises(ConfigError, match=r"use device=cpu$"):
        check_kernels((13, 0), CUDA_13_0[:-1], "a card")


def test_the_refusal_of_an_old_card_names_the_build_to_install() -> None:
    with pytest.raises(ConfigError, match=r"use device=cpu, or torch's builds for CUDA 12\.6 \(https://.*cu126\)"):
        check_kernels((7, 0), CUDA_13_0, "Tesla V100-SXM2-16GB")
