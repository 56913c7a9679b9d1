"""Every optimizer learns at its own default rate, with every adapter; decay pulls towards the frozen model."""

from functools import cache

import pytest
import torch
from conftest import tiny_config
from covering import covering
from workbench import CPU, Parts, build

from danube_sweep import lora
from danube_sweep.config.facts.adapters import OFFERED, never_decayed
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Config
from danube_sweep.optimizer.build_optimizer import answering, build_optimizer, to_training
from danube_sweep.optimizer.parameter_groups import TrainedParameters
from danube_sweep.optimizer.schedule import build_schedule
from danube_sweep.training.prepare import Prepared, prepare
from danube_sweep.training.step_plan import Collator, StepPlan

STEPS = 40
SMALL = ["model.shape.num_hidden_layers=1", "trainer.micro_batch=16", "trainer.effective_batch=16", "data.rows=300"]
FIELDS = {
    "oft": ["lora.fields={oft_block_size:8}"],
    "c3a": ["lora.fields={block_size:16}"],
    "road": ["lora.fields={group_size:8}"],
    "fourierft": ["lora.fields={n_frequency:50}"],
    "waveft": ["lora.fields={n_frequency:50}"],
}
OWN = [f"lora={name}" for name in OPTIONS["lora"] if name != "peft"]
OF_PEFT = [" ".join(["lora=peft", f"lora.type={name}", *FIELDS.get(name, [])]) for name in OFFERED]
PISSA = "lora=peft lora.type=lora lora.fields={init_lora_weights:pissa}"
OPTIMIZERS = [name for name in OPTIONS["optimizer"] if name != "adamw"]


def config_of(adapter: str, optimizer: str = "adamw") -> Config:
    schedule = "constant" if optimizer == "schedulefree" else "cosine"
    words = ["precision=fp32", "model.lr=0.002", f"schedule={schedule}", f"optimizer={optimizer}", *adapter.split()]
    return tiny_config(*SMALL, *words)


@cache
def prepared() -> Prepared:
    return prepare(config_of("lora=none"))


def loss_of(parts: Parts) -> float:
    with torch.no_grad():
        return float(parts.loss(parts.batch(list(range(160)))))


@cache
def fall(adapter: str, optimizer: str) -> float:
    """By how much 40 steps, in a plain loop, lower the loss on 160 training rows."""
    config = config_of(adapter, optimizer)
    parts = build(config, prepared())
    head = dict(parts.head.named_parameters())
    built = build_optimizer(config.optimizer, parts.adapter, head, head_lr=None)
    schedule = build_schedule(config.schedule, built, total_steps=STEPS)
    allocation = lora.rank_allocation(parts.backbone, config.lora, total_steps=STEPS)
    before = loss_of(parts)
    to_training(built)
    for micro in StepPlan(config, prepared().parts["train"], prepared().pad_id).micro_batches(0, Collator(CPU)):
        if micro.step == STEPS:
            break
        loss = parts.loss(micro.batch) + (0.0 if allocation is None else allocation.penalty())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*parts.adapter.values(), *head.values()], 1.0)
        built.step()
        if allocation is not None:
            allocation.after_step(micro.step + 1)
        schedule.step()
        built.zero_grad()
    with answering(built):
        return before - loss_of(parts)


@pytest.mark.parametrize(("adapter", "optimizer"), covering([*OWN, *OF_PEFT], OPTIMIZERS, meets=lambda case: case[1:]))
def test_every_optimizer_learns_half_as_much_as_adamw_with_every_adapter(adapter: str, optimizer: str) -> None:
    assert fall(adapter, optimizer) >= 0.5 * fall(adapter, "adamw") > 0


@pytest.mark.parametrize("optimizer", ["adafactor", "lion_8bit", "muon", "sgd", "schedulefree"])
def test_an_optimizer_with_rules_of_its_own_learns_lora_at_its_default_rate(optimizer: str) -> None:
    assert fall("lora=lora", optimizer) >= 0.5 * fall("lora=lora", "adamw") > 0.03


@pytest.mark.parametrize(("optimizer", "factor"), [("adamw", 1), ("adafactor", 1), ("sgd", 50), ("lion_8bit", 0.5)])
def test_a_default_rate_is_a_multiple_of_the_models(optimizer: str, factor: float) -> None:
    assert tiny_config(f"optimizer={optimizer}", "model.lr=0.004").optimizer.lr == pytest.approx(0.004 * factor)
    assert tiny_config(f"optimizer={optimizer}", "optimizer.lr=0.3").optimizer.lr == 0.3


@pytest.mark.parametrize(
    ("adapter", "factor"), [("lora=full", 20), ("lora=peft lora.type=randlora", 8), ("lora=none", 50)]
)
def test_the_default_rate_of_sgd_follows_the_adapter(adapter: str, factor: float) -> None:
    config = tiny_config("optimizer=sgd", "model.lr=0.004", *adapter.split())
    assert config.optimizer.lr == pytest.approx(0.004 * factor)


@pytest.mark.parametrize("adapter", [*OWN[:6], *OF_PEFT, PISSA])
def test_decay_alone_never_leads_away_from_the_frozen_model(adapter: str) -> None:
    frozen, parts = build(config_of("lora=none"), prepared()), build(config_of(adapter), prepared())
    batch = frozen.batch([0, 1, 2])

    def distance() -> float:
        one, other = (made.backbone.hidden(batch.input_ids_BT, batch.mask_BT) for made in (frozen, parts))
        return float((one - other).abs().max())

    before = distance()
    trained = TrainedParameters(parts.adapter, {}, 1e-3, 1e-3, 0.1, never_decayed=never_decayed(parts.config.lora))
    with torch.no_grad():
        for group in trained.groups():
            for parameter in group["params"]:
                parameter.mul_(0.5 if group["weight_decay"] else 1.0)
    assert distance() <= before * 1.01 + 1e-5
