"""The pack: trials that share a backbone train as if each were alone."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import compose
from workbench import Staying, build, fit_parts, losses, packed, train, train_pack

from danube_sweep.config.schema import Config
from danube_sweep.errors import ConfigError, Diverged, GuardError
from danube_sweep.training.lightning_loop import PackModule, fit
from danube_sweep.training.trial import Phase

Tiny = Callable[..., Config]

HEAD_ONLY = ["lora=none", "precision=fp32", "trainer.max_steps=6", "trainer.validate_every=3", "model.lr=0.01"]


def head_only(tiny: Tiny, *overrides: str) -> Config:
    return tiny(*HEAD_ONLY, *overrides)


@pytest.fixture
def different(tiny: Tiny) -> list[Config]:
    """Trials that differ in all that a pack allows."""
    return [
        head_only(tiny, "head=sequence"),
        head_only(tiny, "head=preference", "seed=3", "optimizer.lr=0.05", "schedule=cosine", "data.order_seed=2"),
        head_only(
            tiny,
            "head=sequence",
            "head.pooling=attention",
            "optimizer=adamw_8bit",
            "trainer.micro_batch=2",
            "trainer.max_steps=4",
            "trainer.clip_norm=0.01",
        ),
    ]


# ------------------------------------------------------------------------------------------------------------- packs


def test_packed_trials_follow_the_losses_of_solo_runs(different: list[Config], tmp_path: Path) -> None:
    packed = train_pack(different, tmp_path / "pack")
    for number, (config, trial) in enumerate(zip(different, packed, strict=True)):
        solo = train(config, tmp_path / "solo" / str(number))
        assert trial.phase is Phase.finished and trial.done.step == config.trainer.max_steps
        assert losses(trial) == pytest.approx(losses(solo), abs=1e-6)
        assert losses(trial, "validation") == pytest.approx(losses(solo, "validation"), abs=1e-6)
        assert trial.done.tokens == solo.done.tokens and trial.best.best_step == solo.best.best_step
        for name, parameter in trial.model.parameters.items():
            torch.testing.assert_close(parameter, solo.model.parameters[name], rtol=1e-4, atol=1e-5)


def test_trials_of_a_pack_learn_and_differ(different: list[Config], tmp_path: Path) -> None:
    seen = [losses(trial) for trial in train_pack(different, tmp_path)]
    assert seen[0] != seen[1] and seen[0][:4] != seen[2]
    assert all(math.isfinite(loss) for one in seen for loss in one)
    assert min(seen[1][1:]) < seen[1][0]


def test_a_trial_that_diverges_fails_alone_and_changes_no_bit_of_another(tiny: Tiny, tmp_path: Path) -> None:
    together = ["trainer.log_every=100", "trainer.validate_every=6"]  # so that both stay to the end
    healthy, other = head_only(tiny, *together), head_only(tiny, "seed=1", *together)
    wild = head_only(tiny, "seed=1", "optimizer.lr=2e37", "schedule.warmup=0", *together)
    with_wild, with_other = train_pack([healthy, wild], tmp_path / "a"), train_pack([healthy, other], tmp_path / "b")
    assert losses(with_wild[0]) == losses(with_other[0])
    assert losses(with_wild[0], "validation") == losses(with_other[0], "validation")
    for name, parameter in with_wild[0].model.parameters.items():
        assert torch.equal(parameter, with_other[0].model.parameters[name])
    assert (with_wild[0].phase, with_wild[0].error) == (Phase.finished, None)
    assert with_wild[1].phase is Phase.failed and isinstance(with_wild[1].error, Diverged)
    assert "\n" not in str(with_wild[1].error) and "optimizer.lr=2e+37" in str(with_wild[1].error)
    assert not all(map(math.isfinite, losses(with_wild[1])))


@pytest.mark.parametrize("first", [True, False])
def test_the_others_train_on_when_a_trial_has_left(tiny: Tiny, tmp_path: Path, first: bool) -> None:
    healthy = head_only(tiny)
    wild = head_only(tiny, "optimizer.lr=2e37", "schedule.warmup=0", "trainer.log_every=1")
    trials = train_pack([wild, healthy] if first else [healthy, wild], tmp_path / "pack")
    failed, survivor = trials if first else reversed(trials)
    assert failed.phase is Phase.failed and failed.done.step < 6
    assert survivor.phase is Phase.finished and survivor.done.step == 6
    assert losses(survivor) == pytest.approx(losses(train(healthy, tmp_path / "solo")), abs=1e-6)


def test_a_stopped_pack_goes_on_where_it_was(different: list[Config], tmp_path: Path) -> None:
    whole = train_pack(different, tmp_path / "whole")
    for stops_after in (1, 2, 0):  # borders seen before the stop is asked for; 0 never asks
        pack, trials = packed(different, tmp_path / "parts")
        stopping = partial(lambda after, one: bool(after) and one.done.step % 3 == after, stops_after, trials[0])
        fit(PackModule(pack, trials, Staying(stopping)), accelerator="cpu")
    for one, other in zip(trials, whole, strict=True):
        assert one.phase is Phase.finished
        assert losses(one) == pytest.approx(losses(other), abs=1e-6)
        assert losses(one, "validation") == pytest.approx(losses(other, "validation"), abs=1e-6)


@pytest.mark.parametrize("adapter", ["dora", "full", "lora lora.bias=all model.shape.model_type=qwen2"])
def test_trials_that_change_the_backbone_do_not_share_it(tiny: Tiny, tmp_path: Path, adapter: str) -> None:
    option, *more = f"lora={adapter}".split()
    alone = tiny("precision=fp32", option, *more)
    pack, trials = packed([head_only(tiny, "seed=1", *more[1:]), alone], tmp_path)
    with pytest.raises(ConfigError, match="train one at a time"):
        pack.arrange(trials)


# ----------------------------------------------------------------------------------- what must not change the losses

ADAPTED = ["precision=fp32", "trainer.max_steps=4", "trainer.validate_every=4", "model.lr=0.002"]


def test_gradient_checkpointing_changes_no_loss(tiny: Tiny, tmp_path: Path) -> None:
    options = [*ADAPTED, "lora.dropout=0.3"]
    plain = train(tiny(*options), tmp_path / "plain")
    saving = train(tiny(*options, "precision.gradient_checkpointing=true"), tmp_path / "saving")
    assert [one.model.backbone.body.is_gradient_checkpointing for one in (saving, plain)] == [True, False]
    assert losses(plain) == losses(saving) and losses(plain, "validation") == losses(saving, "validation")


def test_gradient_checkpointing_recomputes_every_block(tiny: Tiny) -> None:
    parts = build(tiny(*ADAPTED, "precision.gradient_checkpointing=true"))
    calls = [0]
    parts.backbone.body.layers[0].self_attn.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    parts.loss(parts.batch([0, 1])).backward()
    assert calls == [2]


@pytest.mark.parametrize("options", [ADAPTED, HEAD_ONLY, [*ADAPTED, "lora=full"]])
def test_the_micro_batch_changes_no_loss(tiny: Tiny, tmp_path: Path, options: list[str]) -> None:
    small, large = (
        train(tiny(*options, f"trainer.micro_batch={size}", "trainer.eval_batch=4"), tmp_path / str(size))
        for size in (2, 8)
    )
    assert losses(small) == pytest.approx(losses(large), abs=2e-6)
    assert losses(small, "validation") == pytest.approx(losses(large, "validation"), abs=2e-6)


def test_the_micro_batch_changes_no_loss_of_a_language_model(tiny: Tiny, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": f"row {number} " + "counts its words " * (1 + number % 9)}) for number in range(60)]
    texts.write_text("\n".join(lines))
    options = ["data=text", f"data.path=[{texts}]", "head=lm", *ADAPTED, "trainer.validate_every=4"]
    small, large = (train(tiny(*options, f"trainer.micro_batch={size}"), tmp_path / str(size)) for size in (2, 8))
    assert losses(small) == pytest.approx(losses(large), abs=2e-5)
    assert losses(small)[0] == pytest.approx(math.log(512), rel=0.2) and losses(small)[-1] < losses(small)[0]


def test_dropout_comes_from_seed_and_step_alone(tiny: Tiny, tmp_path: Path) -> None:
    options = [*ADAPTED, "lora.dropout=0.5", "trainer.micro_batch=8"]
    torch.manual_seed(1)
    first = losses(train(tiny(*options), tmp_path / "first"))
    torch.manual_seed(2)
    assert losses(train(tiny(*options), tmp_path / "again")) == first
    assert losses(train(tiny(*ADAPTED, "trainer.micro_batch=8"), tmp_path / "without")) != first


# ------------------------------------------------------------------------------------------------------------ guards


def test_a_frozen_weight_that_changes_while_training_ends_the_run(tiny: Tiny, tmp_path: Path) -> None:
    config = head_only(tiny)
    parts = build(config)

    def meddling() -> bool:
        parts.backbone.body.norm.weight.data[0] += 1
        return False

    with pytest.raises(GuardError, match="frozen backbone's weights changed"):
        fit_parts(parts, tmp_path, meddling)


def test_a_backbone_in_another_precision_than_asked_for_does_not_train(tiny: Tiny, tmp_path: Path) -> None:
    parts = build(head_only(tiny))
    parts.backbone.precision = compose(["precision=nf4"]).precision
    with pytest.raises(GuardError, match="asked for was Linear4bit"):
        fit_parts(parts, tmp_path)


def test_training_leaves_eval_mode_behind(tiny: Tiny, tmp_path: Path) -> None:
    parts = build(tiny(*ADAPTED, "precision=nf4", "trainer.max_steps=2", "trainer.validate_every=1"))
    parts.backbone.body.eval()
    trial = fit_parts(parts, tmp_path)
    assert trial.phase is Phase.finished and all(module.training for module in parts.backbone.modules())
