"""The planner against torch's own count on a GPU, at the true shapes with random weights."""

import sys

import pytest
import torch

from danube_sweep import lora
from danube_sweep.composer import compose
from danube_sweep.config.facts.architectures import architecture_of
from danube_sweep.config.schema import Config
from danube_sweep.model.backbone import load_backbone
from danube_sweep.optimizer.build_optimizer import build_optimizer
from danube_sweep.planner.memory import memory_of
from danube_sweep.training.device import peak_memory_bytes, pick_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

SETTINGS = [
    "model=danube3_500m precision=nf4 trainer.micro_batch=4 data.max_length=512",
    "model=danube3_500m precision=nf4_dq trainer.micro_batch=8 data.max_length=1024",
    "model=danube3_500m precision=bf16 trainer.micro_batch=4 data.max_length=1024",
    "model=danube3_500m precision=bf16 trainer.micro_batch=1 data.max_length=2048 lora.targets=qv",
    "model=danube3_500m precision=bf16 lora=full optimizer=adamw_8bit trainer.micro_batch=2 data.max_length=1024",
    "model=danube3_500m precision=fp32 lora=full trainer.micro_batch=2 data.max_length=512",
    "model=danube3_500m precision=fp32 lora=full trainer.micro_batch=2 data.max_length=512 trainer.effective_batch=2",
    "model=danube3_500m precision=bf16 trainer.micro_batch=8 data.max_length=2048 ckpt",
    "model=danube3_4b precision=nf4_dq trainer.micro_batch=1 data.max_length=1024",
    "model=danube3_4b precision=nf4_dq trainer.micro_batch=2 data.max_length=2048 ckpt",
    "model=danube3_4b precision=int8 trainer.micro_batch=2 data.max_length=512",
    "model=danube3_4b precision=bf16 trainer.micro_batch=2 data.max_length=1024",
    "model=danube3_4b precision=nf4 trainer.micro_batch=4 data.max_length=512 lora.last_k=6",
]


def measured_bytes(config: Config) -> int:
    """torch's peak over two steps of full, padded micro-batches."""
    device = pick_device(config.device)
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=device)
    trained = lora.attach(backbone, config.lora, seed=0)
    optimizer = build_optimizer(config.optimizer, trained, {}, head_lr=None)
    torch.cuda.reset_peak_memory_stats()
    rows, length = config.trainer.micro_batch, config.data.max_length
    mask_BT = torch.ones(rows, length, dtype=torch.bool, device=device)
    mask_BT[0, -3:] = rows == 1
    for _ in range(2):
        for _ in range(config.trainer.effective_batch // rows):
            hidden_BTH = backbone.hidden(torch.randint(3, 250, (rows, length), device=device), mask_BT)
            hidden_BTH.float().mean(dim=1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return peak_memory_bytes(device)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("limit_gib", [None, 15.0])
def test_the_planned_peak_is_the_measured_one(
    setting: str, limit_gib: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "model.init=random",
        "device=auto",
        "trainer.effective_batch=8",
        *setting.replace("ckpt", "precision.gradient_checkpointing=true").split(),
    ]
    config = compose(words if limit_gib is None else [*words, f"device.memory_limit_gib={limit_gib}"])
    planned = memory_of(config, architecture_of(config.model.shape))
    if limit_gib is not None and planned.total > limit_gib * 2**30:
        pytest.skip("planned not to fit")
    measured = measured_bytes(config)
    with capsys.disabled():
        print(
            f"\n{setting} {limit_gib}: {measured / 2**30:.3f} GiB measured, {planned.peak / 2**30:.3f} planned",
            file=sys.stderr,
        )
    assert measured == pytest.approx(planned.peak, rel=0.05)
