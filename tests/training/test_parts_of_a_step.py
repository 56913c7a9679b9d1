"""Several ranks train what one process trains: the parts of a step add up to the step, whatever is drawn in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from covering import covering
from workbench import CAUSAL, CPU, packed

from danube_sweep.config.schema import Config
from danube_sweep.errors import TrialFailed
from danube_sweep.training.follow import agreed
from danube_sweep.training.ranks import ALONE, Ranks, _together, joined
from danube_sweep.training.step_plan import Collator, StepPlan, random_state
from danube_sweep.training.trial import ActiveTrial, add_up_gradients

Tiny = Callable[..., Config]

HEADS = [
    ["head=sequence", "head.dropout=0.3", "head.hidden=16"],
    ["head=preference", "head.dropout=0.3"],
    ["head=bradley_terry_ties", "head.dropout=0.3"],
    CAUSAL,
]
ADAPTERS = [["lora.dropout=0.2"], ["lora=none"], ["lora=dora", "lora.dropout=0.2"], ["lora.rank=4", "lora.last_k=1"]]
LAYOUTS = [["data.layout=padded"], ["data.layout=flat"]]
BATCHES = [(4, 8), (4, 12), (6, 6)]
"""micro_batch and effective_batch: divided by two ranks and more, or not."""


def step_of(trial: ActiveTrial, pack: object, ranks: Ranks) -> tuple[float, list[torch.Tensor]]:
    """The loss of a rank's part of the first step, and its gradients."""
    plan = StepPlan(trial.config, trial.plan.train, trial.plan.pad_id, ranks)
    loss = 0.0
    for parameter in trial.model.parameters.values():
        if parameter.grad is not None:  # a packed adapter's are views
            parameter.grad.zero_()
    for micro in plan.micro_batches(0, Collator(CPU)):
        torch.manual_seed(random_state(trial.config.seed, micro.step, micro.index))
        (hidden,) = pack.hidden([(trial, micro)])
        torch.manual_seed(random_state(trial.config.seed, micro.step, micro.index))
        mean, part = trial._losses(hidden, micro)
        part.backward()
        loss += float(mean) * micro.of_step
        if micro.last:
            break
    pack.adapters.bind()
    return loss, [one.grad.clone() for one in trial.model.parameters.values()]


def trains(head: list[str], adapter: list[str], *_: object) -> bool:
    return head is not CAUSAL or adapter != ["lora=none"]


@pytest.mark.parametrize(
    ("head", "adapter", "layout", "batch"), covering(HEADS, ADAPTERS, LAYOUTS, BATCHES, possible=trains)
)
def test_the_parts_of_all_ranks_add_up_to_the_step_of_one(
    tiny: Tiny,
    tmp_path: Path,
    head: list[str],
    adapter: list[str],
    layout: list[str],
    batch: tuple[int, int],
) -> None:
    micro, effective = (f"trainer.micro_batch={batch[0]}", f"trainer.effective_batch={batch[1]}")
    pack, (trial,) = packed([tiny("precision=fp32", *head, *adapter, *layout, micro, effective)], tmp_path)
    pack.arrange([trial])
    trial.start(Collator(CPU))
    for parameter in trial.model.parameters.values():  # an adapter starts at zero, where dropout changes nothing
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    pack.backbone.body.train()
    trial.model.head.train()
    loss, gradients = step_of(trial, pack, ALONE)
    for count in (2, 4):
        parts = [step_of(trial, pack, Ranks(rank, count)) for rank in range(count)]
        assert sum(part for part, _ in parts) == pytest.approx(loss, abs=1e-6)
        for own, *others in zip(gradients, *(found for _, found in parts), strict=True):
            torch.testing.assert_close(sum(others), own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("batch", BATCHES)
def test_every_row_of_a_step_counts_on_one_rank(tiny: Tiny, tmp_path: Path, batch: tuple[int, int], count: int) -> None:
    config = tiny(f"trainer.micro_batch={batch[0]}", f"trainer.effective_batch={batch[1]}", "trainer.epochs=1")
    _, (trial,) = packed([config], tmp_path)
    train, pad_id = trial.plan.train, trial.plan.pad_id
    whole = [*StepPlan(config, train, pad_id).micro_batches(0, Collator(CPU))]
    shares = [
        [*StepPlan(config, train, pad_id, Ranks(rank, count)).micro_batches(0, Collator(CPU))] for rank in range(count)
    ]
    for step in range(whole[-1].step + 1):
        own = [[one for one in share if one.step == step] for share in shares]
        assert len({len(micros) for micros in own}) == 1  # every rank comes to the border in the same round
        assert all(micros[-1].last and not any(one.last for one in micros[:-1]) for micros in own)
        counted = [one for micros in own for one in micros if one.of_step > 0]
        rows = np.concatenate([one.batch.rows for one in counted])
        wanted = np.concatenate([one.batch.rows for one in whole if one.step == step])
        assert sorted(rows) == sorted(wanted)
        assert sum(one.of_step for one in counted) == pytest.approx(1.0)
        assert {one.tokens for micros in own for one in micros[-1:]} == {
            one.tokens for one in whole if one.step == step and one.last
        }


def test_the_longest_step_is_tried_with_the_rows_that_a_rank_will_pass(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("trainer.micro_batch=6", "trainer.effective_batch=6", "trainer.epochs=1")
    _, (trial,) = packed([config], tmp_path)
    train, pad_id, lengths = trial.plan.train, trial.plan.pad_id, trial.plan.train.lengths
    for count, most in ((1, 6), (2, 3), (4, 2)):
        plans = [StepPlan(config, train, pad_id, Ranks(rank, count)) for rank in range(count)]
        tried = [plan.largest(0, Collator(CPU), flat=False) for plan in plans]
        assert max(len(one.batch.rows) for one in tried) == most
        for plan, one in zip(plans, tried, strict=True):
            passed = [micro.batch for micro in plan.micro_batches(0, Collator(CPU))]
            assert one.batch.input_ids_BT.numel() == max(batch.input_ids_BT.numel() for batch in passed)
        assert lengths.max() in {one.batch.input_ids_BT.shape[1] for one in tried}


def test_dropout_in_pefts_layers_is_drawn_for_whole_micro_batches(tiny: Tiny, tmp_path: Path) -> None:
    _, (trial,) = packed([tiny("lora=dora", "lora.dropout=0.1", "trainer.effective_batch=4")], tmp_path)
    plans = [StepPlan(trial.config, trial.plan.train, 0, Ranks(rank, 2)) for rank in range(2)]
    drawn = [next(plan.micro_batches(0, Collator(CPU))) for plan in plans]
    assert [(len(one.batch.rows), one.share > 0) for one in drawn] == [(4, True), (1, False)]
    assert str(plans[0].waiting_note()).startswith("1 of device.count=2 devices wait in every step: it has 1 micro-")
    assert StepPlan(trial.config, trial.plan.train, 0).waiting_note() is None


def test_one_process_asks_nobody() -> None:
    values = torch.ones(3)
    ALONE.add_up([values])
    assert (ALONE.said(5), ALONE.each("a"), ALONE.either([True, False]), values.tolist()) == (
        5, ["a"], [True, False], [1.0] * 3,
    )  # fmt: skip
    with joined(None) as ranks:
        assert ranks is ALONE
    with pytest.raises(TrialFailed, match=r"^as it is$"), agreed(ALONE):
        raise TrialFailed("as it is")


def test_a_lost_connection_says_why_and_a_lack_of_memory_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, _together():
        raise RuntimeError("NCCL error in x.cpp:1\nLast error:\n/dev/shm is full\nException raised from y:\nframe #0")
    assert ended.value.code == 76
    said = capsys.readouterr().err
    assert said.endswith("cannot reach the other ranks: NCCL error in x.cpp:1 Last error: /dev/shm is full\n")
    with pytest.raises(RuntimeError, match="out of memory"), _together():
        raise RuntimeError("NCCL error: Cuda failure 2 'out of memory'")
    assert capsys.readouterr().err == ""


class Other:
    """Another rank, by what it adds to each sum."""

    count = 2

    def __init__(self, *adds: list[float]) -> None:
        self.adds = adds

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        for tensor, more in zip(tensors, self.adds, strict=True):
            tensor += torch.tensor(more).view(tensor.shape)


def test_a_parameter_that_the_rows_of_one_rank_did_not_reach_counts_as_zero_there() -> None:
    here, there, nowhere, frozen = (torch.nn.Parameter(torch.zeros(2), requires_grad=number < 3) for number in range(4))
    here.grad, loss = torch.tensor([1.0, 2.0]), torch.tensor(0.5)
    other: Any = Other([0, 0], [3, 4], [0, 0], [0, 1, 0], [0.25])
    add_up_gradients([here, there, nowhere, frozen], loss, other)
    assert (here.grad.tolist(), there.grad.tolist(), nowhere.grad, frozen.grad) == ([1, 2], [3, 4], None, None)
    assert float(loss) == 0.75


def test_clusters_variables_make_no_distributed_run_of_lightnings(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runs import train

    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert train(tiny("trainer.max_steps=1"), tmp_path / "run")["state"] == "finished"
