"""AdaLoRA: ranks fall on time, the loss keeps the vectors orthogonal, and a stop changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from covering import one_in
from runs import StopAfter, metrics
from runs import train as run
from safetensors.torch import load_file
from workbench import Parts, build

from danube_sweep import lora
from danube_sweep.config.schema import Adalora, Config
from danube_sweep.config.stored import load_config
from danube_sweep.errors import Interrupted
from danube_sweep.lora.adalora_ranks import RankAllocation

Tiny = Callable[..., Config]

STEPS = 12
ADALORA = ["lora=adalora", "lora.rank=4", "lora.target_rank=2", "lora.delta_t=2"]
EXACT = [*ADALORA, "lora.dropout=0.1", f"trainer.max_steps={STEPS}", "trainer.validate_every=5", "data.rows=50"]


def allocation_of(parts: Parts, steps: int) -> RankAllocation:
    found = lora.rank_allocation(parts.backbone, parts.config.lora, total_steps=steps)
    assert found is not None
    return found


def step(parts: Parts, allocation: RankAllocation, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    (parts.loss(parts.batch([0, 1, 2])) + allocation.penalty()).backward()
    optimizer.step()
    allocation.after_step(number)


def ranks(parts: Parts) -> int:
    return sum(int((value != 0).sum()) for name, value in parts.adapter.items() if ".lora_E." in name)


def test_ranks_stand_then_fall_to_the_target_and_stay(tiny: Tiny) -> None:
    parts = build(tiny(*ADALORA, "lora.warmup=0.25", "lora.final=0.25"))
    allocation = allocation_of(parts, 20)
    optimizer = torch.optim.AdamW(parts.adapter.values(), lr=0.02)
    found = []
    for number in range(1, 21):
        step(parts, allocation, optimizer, number)
        found.append(ranks(parts))
    assert found[:5] == [14 * 4] * 5
    assert found[5:14:2] == sorted(found[5:14:2], reverse=True) and 14 * 2 < found[9] < 14 * 4
    assert found[14:] == [14 * 2] * 6


def test_however_few_steps_there_are_ranks_have_fallen_at_the_end(tiny: Tiny) -> None:
    for steps, warmup, final in ((1, 0.0, 0.0), (1, 0.9, 0.0), (2, 0.5, 0.4), (3, 0.0, 0.9)):
        parts = build(tiny(*ADALORA, f"lora.warmup={warmup}", f"lora.final={final}"))
        allocation = allocation_of(parts, steps)
        optimizer = torch.optim.AdamW(parts.adapter.values(), lr=0.02)
        for number in range(1, steps + 1):
            step(parts, allocation, optimizer, number)
        assert ranks(parts) <= 14 * 2


def test_the_penalty_is_the_mean_distance_from_orthogonal_and_has_a_gradient(tiny: Tiny) -> None:
    parts = build(tiny(*ADALORA, "lora.orthogonality=0.25"))
    allocation = allocation_of(parts, 10)
    vectors = [value for name, value in parts.adapter.items() if ".lora_E." not in name]
    grams = [one @ one.T if one.shape[0] == 4 else one.T @ one for one in vectors]
    wanted = sum(torch.linalg.norm(gram - torch.eye(4)) for gram in grams) / len(grams)
    torch.testing.assert_close(allocation.penalty(), 0.25 * wanted)
    allocation.penalty().backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in vectors)


def test_other_adapters_allocate_nothing(tiny: Tiny) -> None:
    parts = build(tiny())
    assert lora.rank_allocation(parts.backbone, parts.config.lora, total_steps=5) is None


def outcome(folder: Path) -> tuple[object, ...]:
    result = json.loads((folder / "result.json").read_text())
    state = load_file(folder / "adapter" / "adapter_model.safetensors")
    kept = {key: value for key, value in result.items() if key != "measured"}
    return metrics(folder, "train"), metrics(folder, "validation"), kept, {k: v.tolist() for k, v in state.items()}


@pytest.mark.parametrize("precision", one_in(2, ["fp32", "nf4"]))
def test_a_run_stopped_before_while_and_after_ranks_fall_ends_as_the_undisturbed_one(
    tiny: Tiny, tmp_path: Path, precision: str
) -> None:
    config = tiny(*EXACT, f"precision={precision}", "lora.warmup=0.2", "lora.final=0.3")
    assert isinstance(config.lora, Adalora)
    run(config, tmp_path / "whole")
    for number in (1, 5, 10) if precision == "fp32" else (6,):
        folder = tmp_path / str(number)
        with pytest.raises(Interrupted):
            run(config, folder, stop=StopAfter(number))
        run(load_config(folder / "config.yaml"), folder)
        assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("option", one_in(3, ["ia3", "vera", "olora"]))
def test_so_does_one_whose_frozen_part_is_made_again(tiny: Tiny, tmp_path: Path, option: str) -> None:
    config = tiny(f"lora={option}", "precision=nf4", f"trainer.max_steps={STEPS}", "data.rows=50")
    run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run", stop=StopAfter(7))
    run(load_config(tmp_path / "run" / "config.yaml"), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
