"""The longest step is tried once before training: it costs a pass and changes nothing else."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import one_in
from workbench import CPU, Staying, losses, packed

from danube_sweep.config.schema import Config
from danube_sweep.data.batches import Batch
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.longest_step import try_longest_step
from danube_sweep.training.pack import TrainingPack
from danube_sweep.training.step_plan import Collator
from danube_sweep.training.trial import ActiveTrial

Tiny = Callable[..., Config]

SHORT = ["trainer.max_steps=4", "trainer.validate_every=4", "model.lr=0.003", "trainer.log_every=1"]
PACKS = {
    "lora": [["precision=fp32", "lora.dropout=0.3"], ["precision=fp32", "seed=1", "lora.rank=4", "head.dropout=0.2"]],
    "adalora": [["precision=nf4", "lora=adalora", "lora.delta_t=1"]],
    "dora": [["precision=bf16", "lora=dora", "optimizer=muon"]],
    "full": [["precision=fp32", "lora=full", "precision.gradient_checkpointing=true"]],
    "head": [["precision=fp32", "lora=none"]],
}


def composed(tiny: Tiny, name: str) -> list[Config]:
    return [tiny(*SHORT, *own) for own in PACKS[name]]


def everything(trial: ActiveTrial) -> list[Any]:
    """What a trial is at a border, to the last bit."""
    weights = {name: one.detach().clone() for name, one in trial.model.parameters.items()}
    gradients = {name: None if one.grad is None else one.grad.clone() for name, one in trial.model.parameters.items()}
    allocation = None if trial.allocation is None else copy.deepcopy(trial.allocation.state_dict())
    states = copy.deepcopy([trial.optimizer.state_dict(), trial.schedule.state_dict(), trial.scaler.state_dict()])
    return [weights, gradients, allocation, states, asdict(trial.done), trial.phase.value, torch.get_rng_state()]


def same(one: Any, other: Any) -> bool:
    """To the last bit; what is no number equals what is no number."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


class Retrying(Staying):
    """Tries the longest step again at every border."""

    def __init__(self, pack: TrainingPack) -> None:
        super().__init__()
        self.pack = pack

    def leaves(self, trial: ActiveTrial) -> bool:
        before = everything(trial)
        try_longest_step(self.pack, Collator(CPU))
        assert same(everything(trial), before)
        return False


@pytest.mark.parametrize("name", one_in(3, PACKS))
def test_trying_it_changes_no_bit_of_what_follows(tiny: Tiny, tmp_path: Path, name: str) -> None:
    seen = []
    for again in (False, True):
        pack, trials = packed(composed(tiny, name), tmp_path / str(again))
        fit(PackModule(pack, trials, Retrying(pack) if again else Staying()), accelerator="cpu")
        assert [trial.error for trial in trials] == [None] * len(trials)
        seen.append([(losses(trial), losses(trial, "validation"), trial.model.parameters) for trial in trials])
    assert same(seen[1], seen[0])


@pytest.mark.parametrize("layout", ["padded", "flat"])
def test_a_lack_of_memory_for_the_longest_step_shows_before_the_first(tiny: Tiny, tmp_path: Path, layout: str) -> None:
    own = [*SHORT, "precision=fp32", "data.max_length=256", f"data.layout={layout}"]
    pack, trials = packed([tiny(*own), tiny(*own, "seed=1")], tmp_path)

    def size(batch: Batch) -> int:
        return batch.tokens if layout == "flat" else batch.input_ids_BT.numel()

    plans = [[size(micro.batch) for micro in trial.plan.micro_batches(0, Collator(CPU))] for trial in trials]
    room = max(max(sizes) for sizes in plans)
    assert all(sizes[0] < room for sizes in plans)
    done: list[int] = []

    def full(_module: Any, given: Any, named: dict[str, torch.Tensor]) -> None:
        done.append(max(trial.done.step for trial in trials))
        inputs = named["input_ids"] if "input_ids" in named else given[0]
        if inputs.numel() >= 2 * room:
            raise torch.OutOfMemoryError("the pass has more tokens than there is room for")

    pack.backbone.body.register_forward_pre_hook(full, with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        fit(PackModule(pack, trials, Staying()), accelerator="cpu")
    assert done == [0]
