"""Optimizers and schedules: groups, values, and states that go through a checkpoint and continue bit for bit."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from workbench import Staying, packed

from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Config, Optimizer
from danube_sweep.optimizer.build_optimizer import answering, build_optimizer, to_training
from danube_sweep.optimizer.schedule import build_schedule
from danube_sweep.storage import checkpoint
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.resume import best_checkpoint
from danube_sweep.training.run import run_trial
from danube_sweep.training.shards import Shards
from danube_sweep.training.trained_weights import load_trained

Tiny = Callable[..., Config]

OPTIMIZERS = list(OPTIONS["optimizer"])
SCHEDULES = {"schedulefree": ["constant"]}
"""The schedules of an optimizer that does not go with all."""


def parameters(seed: int = 0, size: int = 80) -> dict[str, nn.Parameter]:
    """A matrix of 4096 elements and more (what 8-bit optimizers keep in 8 bits), a bias, and a small matrix."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"large": (size, 64), "bias": (size,), "small": (4, 8)}
    return {name: nn.Parameter(torch.randn(*shape, generator=generator)) for name, shape in shapes.items()}


def config_of(tiny: Tiny, name: str, *overrides: str) -> Optimizer:
    return tiny(f"optimizer={name}", f"schedule={schedules_of(name)[0]}", "optimizer.lr=0.01", *overrides).optimizer


def schedules_of(name: str) -> list[str]:
    return SCHEDULES.get(name, list(OPTIONS["schedule"]))


def step(optimizer: torch.optim.Optimizer, values: dict[str, nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(100 + number)
    for parameter in values.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


# ------------------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_do_not_decay_and_the_head_has_its_own_rate(tiny: Tiny, name: str) -> None:
    backbone, head = parameters(0), parameters(1)
    optimizer = build_optimizer(config_of(tiny, name, "optimizer.weight_decay=0.3"), backbone, head, head_lr=0.5)
    told = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(told) == 6
    for values, lr in ((backbone, 0.01), (head, 0.5)):
        assert told[id(values["large"])] == told[id(values["small"])] == (lr, 0.3)
        assert told[id(values["bias"])] == (lr, 0.0)


ADAMS = ["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"]


@pytest.mark.parametrize("name", ADAMS)
def test_the_settings_of_adam_arrive(tiny: Tiny, name: str) -> None:
    config = config_of(tiny, name, "optimizer.beta1=0.8", "optimizer.beta2=0.95", "optimizer.eps=1e-6")
    optimizer = build_optimizer(config, parameters(), {}, head_lr=None)
    assert all(group["betas"] == (0.8, 0.95) and group["eps"] == 1e-6 for group in optimizer.param_groups)
    assert all(group["lr"] == 0.01 for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("name", "overrides", "arrived"),
    [
        ("ademamix_8bit", ["beta3=0.99", "slow=3"], {"betas": (0.9, 0.999, 0.99), "alpha": 3.0}),
        ("lion_8bit", ["beta1=0.8", "beta2=0.95"], {"betas": (0.8, 0.95)}),
        ("sgd", ["momentum=0.5", "nesterov=true"], {"momentum": 0.5, "nesterov": True}),
        ("adafactor", ["clip=2"], {"clip_threshold": 2.0, "scale_parameter": False, "relative_step": False}),
        ("muon", ["momentum=0.5"], {"momentum": 0.5}),
        ("schedulefree", ["beta1=0.8", "beta2=0.95", "eps=1e-6"], {"betas": (0.8, 0.95), "eps": 1e-6}),
    ],
)
def test_the_settings_of_the_others_arrive(
    tiny: Tiny, name: str, overrides: list[str], arrived: dict[str, Any]
) -> None:
    config = config_of(tiny, name, *(f"optimizer.{one}" for one in overrides))
    optimizer = build_optimizer(config, {"large": parameters()["large"]}, {}, head_lr=None)
    assert all(group[key] == value for group in optimizer.param_groups for key, value in arrived.items())


def test_muon_orthogonalises_matrices_and_leaves_heads_embeddings_and_vectors_to_adamw(tiny: Tiny) -> None:
    backbone, head = parameters(0), parameters(1)
    backbone["model.embed_tokens.weight"] = nn.Parameter(torch.randn(8, 4))
    before = {name: value.detach().clone() for name, value in {**backbone, "head": head["large"]}.items()}
    config = config_of(tiny, "muon", "optimizer.weight_decay=0")
    optimizer = build_optimizer(config, backbone, head, head_lr=0.05)
    step(optimizer, {**backbone, **{f"head.{name}": value for name, value in head.items()}}, 0)
    moved = (backbone["large"].detach() - before["large"]) / (0.2 * math.sqrt(80) * 0.01)
    assert torch.linalg.svdvals(moved).max() < 1.3 and torch.linalg.svdvals(moved).min() > 0.5
    for name, value, lr in (
        ("model.embed_tokens.weight", backbone["model.embed_tokens.weight"], 0.01),
        ("bias", backbone["bias"], 0.01),
        ("head", head["large"], 0.05),
    ):
        torch.testing.assert_close((value.detach() - before[name]).abs(), torch.full_like(value, lr), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trial_trains_with_it(tiny: Tiny, name: str, tmp_path: Path) -> None:
    config = tiny(f"optimizer={name}", "data.rows=40", "trainer.max_steps=3", f"schedule={schedules_of(name)[-1]}")
    result = run_trial(config, tmp_path / "run", Terminal(Console(quiet=True)))
    assert result["state"] == "finished" and math.isfinite(result["train_loss"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lora_plus_lets_b_learn_faster(tiny: Tiny, name: str) -> None:
    values = {"q.lora_A.default.weight": parameters(0)["large"], "q.lora_B.default.weight": parameters(1)["large"]}
    optimizer = build_optimizer(config_of(tiny, name), values, {}, head_lr=None, plus_ratio=16.0)
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert [rates[id(one)] for one in values.values()] == pytest.approx([0.01, 0.16])


def test_a_trial_trains_with_lora_plus(tiny: Tiny, tmp_path: Path) -> None:
    losses = []
    for ratio in (1, 16):
        config = tiny(f"lora.plus_ratio={ratio}", "data.rows=40", "trainer.max_steps=4", "optimizer.lr=1e-3")
        losses.append(run_trial(config, tmp_path / str(ratio), Terminal(Console(quiet=True)))["train_loss"])
    assert losses[0] != losses[1]


def test_a_head_without_a_rate_takes_the_optimizers(tiny: Tiny) -> None:
    optimizer = build_optimizer(config_of(tiny, "adamw"), {}, parameters(), head_lr=None)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


# ------------------------------------------------------------------------------------------------------------- steps


def test_adamw_steps_as_its_paper_says(tiny: Tiny) -> None:
    config = config_of(tiny, "adamw", "optimizer.weight_decay=0.1")
    values = parameters()
    start = {name: value.detach().clone() for name, value in values.items()}
    step(build_optimizer(config, values, {}, head_lr=None), values, 0)
    for name, value in values.items():
        decay = 0.1 if value.ndim == 2 else 0.0
        assert value.grad is not None
        # After one step both moments, corrected, are the gradient and its square.
        wanted = start[name] * (1 - 0.01 * decay) - 0.01 * value.grad / (value.grad.abs() + 1e-8)
        torch.testing.assert_close(value.detach(), wanted)


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_eight_bit_optimizers_step_almost_like_adamw_and_keep_bytes(tiny: Tiny, name: str) -> None:
    exact, rounded = parameters(), parameters()
    plain = build_optimizer(config_of(tiny, "adamw"), exact, {}, head_lr=None)
    eight_bit = build_optimizer(config_of(tiny, name), rounded, {}, head_lr=None)
    for number in range(5):
        step(plain, exact, number)
        step(eight_bit, rounded, number)
    apart = (rounded["large"] - exact["large"]).detach().norm()
    moved = (exact["large"] - parameters()["large"]).detach().norm()
    assert 0 < apart < 0.1 * moved
    torch.testing.assert_close(rounded["small"], exact["small"])  # too small to be worth 8 bits
    assert eight_bit.state[rounded["large"]]["state1"].dtype is torch.uint8
    assert eight_bit.state[rounded["small"]]["state1"].dtype is torch.float32


def test_schedule_free_answers_with_the_average_of_its_steps_weighed_by_the_square_of_the_rate(tiny: Tiny) -> None:
    config = tiny("optimizer=schedulefree", "schedule=constant", "schedule.warmup=0.5", "optimizer.beta1=0.8")
    values = parameters()
    optimizer = build_optimizer(config.optimizer, values, {}, head_lr=None)
    schedule = build_schedule(config.schedule, optimizer, total_steps=8)
    to_training(optimizer)
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    for number in range(8):
        rate = optimizer.param_groups[0]["lr"]
        step(optimizer, values, number)
        schedule.step()
        seen.append((rate**2, {name: optimizer.state[value]["z"].clone() for name, value in values.items()}))
        with answering(optimizer):
            answers = {name: value.detach().clone() for name, value in values.items()}
        total = sum(weight for weight, _ in seen) or 1.0
        for name, value in values.items():
            if number > 0:  # the first step of a warm-up has a rate of 0
                average = sum(weight * points[name] for weight, points in seen) / total
                torch.testing.assert_close(answers[name], average, rtol=1e-5, atol=1e-5)
            last = seen[-1][1][name]
            torch.testing.assert_close(value.detach(), 0.8 * answers[name] + 0.2 * last, rtol=1e-5, atol=1e-5)


def test_only_an_optimizer_with_modes_is_switched(tiny: Tiny) -> None:
    for name in OPTIMIZERS:
        values = parameters()
        optimizer = build_optimizer(config_of(tiny, name), values, {}, head_lr=None)
        to_training(optimizer)
        for number in range(2):
            step(optimizer, values, number)
        before = values["large"].detach().clone()
        with answering(optimizer):
            assert torch.equal(values["large"], before) is (name != "schedulefree")


def test_what_was_validated_is_saved_and_what_trains_is_another_point(tiny: Tiny, tmp_path: Path) -> None:
    steps = ["data.rows=40", "trainer.max_steps=4", "trainer.validate_every=4", "optimizer.lr=0.01"]
    pack, (trial,) = packed([tiny("optimizer=schedulefree", "schedule=constant", *steps)], tmp_path)
    fit(PackModule(pack, [trial], Staying()), accelerator="cpu")
    told = checkpoint.read_manifest(best_checkpoint(trial))["metrics"]
    pack.arrange([trial])
    assert pack.evaluate([trial], "validation")[0].metrics != told
    load_trained(best_checkpoint(trial), trial.model)
    assert pack.evaluate([trial], "validation")[0].metrics == told


@pytest.mark.parametrize("name", ["adamw", "schedulefree"])
def test_a_step_that_overflows_in_fp16_is_left_out_and_the_next_one_counts(tiny: Tiny, name: str) -> None:
    values = {"large": parameters()["large"]}
    optimizer = build_optimizer(config_of(tiny, name), values, {}, head_lr=None)
    to_training(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, moves in ((math.inf, False), (1.0, True)):
        before = values["large"].detach().clone()
        scaler.scale(values["large"].sum() * factor).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(values["large"], before) is not moves


# ----------------------------------------------------------------------------------------------------------- schedule


def rates(config: Config, steps: int) -> list[float]:
    """The learning rate of each step, and the one after the last."""
    values = parameters(size=8)
    optimizer = build_optimizer(config.optimizer, values, {}, head_lr=None)
    schedule = build_schedule(config.schedule, optimizer, total_steps=steps)
    seen = []
    for number in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        step(optimizer, values, number)
        schedule.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [
        ("linear", 0.5, 0.0),
        ("cosine", 0.5, 0.0),
        ("constant", 1.0, 1.0),
        ("wsd", 1.0, 0.0),
        ("inverse_sqrt", (4 / 12) ** 0.5, (4 / 20) ** 0.5),
    ],
)
def test_schedules_warm_up_peak_and_end_where_they_should(tiny: Tiny, name: str, middle: float, last: float) -> None:
    seen = rates(tiny(f"schedule={name}", "schedule.warmup=0.2", "optimizer.lr=2.0"), steps=20)
    warming = [2.0 * number / 4 for number in range(4)]
    assert seen[:5] == pytest.approx([*warming, 2.0])
    assert seen[12] == pytest.approx(2.0 * middle)
    assert seen[20] == pytest.approx(2.0 * last, abs=1e-12)
    assert max(seen) == 2.0 and all(rate > 0 for rate in seen[1:20])


def test_cosine_follows_half_a_cosine_and_linear_a_line(tiny: Tiny) -> None:
    for name, share in (("linear", lambda k: 1 - k / 10), ("cosine", lambda k: (1 + math.cos(math.pi * k / 10)) / 2)):
        seen = rates(tiny(f"schedule={name}", "schedule.warmup=0", "optimizer.lr=1.0"), steps=10)
        assert seen == pytest.approx([share(k) for k in range(11)], abs=1e-12)


def test_wsd_goes_down_in_its_last_part_alone(tiny: Tiny) -> None:
    seen = rates(tiny("schedule=wsd", "schedule.warmup=0", "schedule.decay=0.5", "optimizer.lr=1.0"), steps=10)
    assert seen == pytest.approx([1.0] * 6 + [0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-9)


def test_without_warm_up_the_first_step_is_at_the_peak(tiny: Tiny) -> None:
    for name in OPTIONS["schedule"]:
        assert rates(tiny(f"schedule={name}", "schedule.warmup=0", "optimizer.lr=1.0"), steps=3)[0] == 1.0


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.4), (1, 0.9), (3, 0.9)])
def test_even_the_shortest_run_reaches_the_peak(tiny: Tiny, steps: int, warmup: float) -> None:
    seen = rates(tiny("schedule=linear", f"schedule.warmup={warmup}", "optimizer.lr=1.0"), steps)
    assert seen[steps - 1] == 1.0


# -------------------------------------------------------------------------------------------------------------- states


def through_files(state: Any, folder: Path) -> Any:
    skeleton, tensors = checkpoint.pack_state(state)
    checkpoint.save_tensors(tensors, folder / "training.safetensors")
    (folder / "state.json").write_text(json.dumps(skeleton))
    return checkpoint.unpack_state(
        json.loads((folder / "state.json").read_text()), checkpoint.load_tensors(folder / "training.safetensors")
    )


@pytest.mark.parametrize(
    ("name", "schedule_name"), [(name, schedule) for name in OPTIMIZERS for schedule in schedules_of(name)]
)
def test_a_saved_state_continues_bit_for_bit(tiny: Tiny, tmp_path: Path, name: str, schedule_name: str) -> None:
    config = tiny(f"optimizer={name}", f"schedule={schedule_name}", "schedule.warmup=0.3", "optimizer.lr=0.01")

    def made(values: dict[str, nn.Parameter]) -> tuple[torch.optim.Optimizer, Any]:
        head = {name: value for name, value in values.items() if name != "large"}
        optimizer = build_optimizer(config.optimizer, {"large": values["large"]}, head, head_lr=0.02)
        to_training(optimizer)
        return optimizer, build_schedule(config.schedule, optimizer, total_steps=10)

    def train(values: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, schedule: Any, steps: range) -> None:
        for number in steps:
            step(optimizer, values, number)
            schedule.step()

    values = parameters()
    optimizer, schedule = made(values)
    train(values, optimizer, schedule, range(4))
    saved = {name: value.detach().clone() for name, value in values.items()}
    state = through_files({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, tmp_path)
    train(values, optimizer, schedule, range(4, 9))

    resumed = {name: nn.Parameter(value) for name, value in saved.items()}
    optimizer, schedule = made(resumed)
    optimizer.load_state_dict(Shards(resumed).divided(state["optimizer"], optimizer))
    to_training(optimizer)
    schedule.load_state_dict(state["schedule"])
    train(resumed, optimizer, schedule, range(4, 9))
    assert all(torch.equal(values[name], resumed[name]) for name in values)
