"""Which trials train together is decided from their configs, by what they need and what they gain."""

from dataclasses import replace
from typing import Any

import pytest
from conftest import compose, tiny_config

from danube_sweep.config.schema import Config
from danube_sweep.planner.memory import Memory, memory_of, pack_memory
from danube_sweep.planner.pack_plan import (
    MOST,
    Corrections,
    Lengths,
    PlannedPack,
    choose_pack,
    fair_share,
    joins,
    pack_key,
    plan_packs,
)
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import pack_seconds, seconds_of

MIDDLE = [
    "device=cpu",
    "device.memory_gib=8",
    "model.shape.hidden_size=768",
    "model.shape.intermediate_size=2048",
    "model.shape.num_hidden_layers=8",
    "model.shape.num_attention_heads=12",
    "model.shape.num_key_value_heads=4",
    "model.shape.head_dim=64",
    "model.shape.vocab_size=8000",
]
ROWS_OF_2048 = ["data.max_length=2048", "trainer.micro_batch=1", "trainer.effective_batch=1"]
ON_T4 = ["model=danube3_500m", "precision=nf4", "device=kaggle_t4", "data.max_length=128", "trainer.micro_batch=1"]


def of_tokens(tokens: int, *overrides: str) -> Config:
    rows = [f"data.max_length={tokens}", "trainer.micro_batch=1", "trainer.effective_batch=1"]
    return compose([*rows, *overrides])


def seeds(trials: int, *overrides: str) -> list[Config]:
    """Trials that differ in their seeds and read the same batches."""
    config = compose([*overrides, "data.order_seed=0"])
    return [replace(config, seed=seed) for seed in range(trials)]


def gain_of(*configs: Config) -> float:
    """Seconds of the trials one after another over those of the pack."""
    model, device = planned_architecture(configs[0].model), planned_device(configs[0].device)
    mean = float(configs[0].data.max_length)
    alone = sum(seconds_of(config, model, device, tokens_per_row=mean).step for config in configs)
    return alone / pack_seconds(configs, model, device, tokens_per_row=mean).step


def memory(*configs: Config, **known: Any) -> Memory:
    return pack_memory(configs, planned_architecture(configs[0].model), **known)


# --------------------------------------------------------------------------------------------- what can be packed


@pytest.mark.parametrize(
    "overrides",
    [
        ["lora.rank=64", "lora.alpha=1", "lora.dropout=0.1", "lora.targets=qv", "lora.last_k=1", "lora.plus_ratio=16"],
        ["lora=none"],
        ["head=sequence", "data=table", "data.path=x", "data.max_length=96"],
        ["optimizer=muon", "schedule=wsd", "seed=7", "data.order_seed=3", "trainer.max_steps=9"],
        ["trainer.effective_batch=16", "trainer.clip_norm=null", "tracking=wandb"],
    ],
    ids=" ".join,
)
def test_trials_that_differ_in_anything_but_the_backbone_may_train_together(overrides: list[str]) -> None:
    assert pack_key(tiny_config(*overrides)) == pack_key(tiny_config()) is not None


@pytest.mark.parametrize(
    "override",
    [
        "model.init_seed=1",
        "precision=nf4",
        "precision.gradient_checkpointing=true",
        "device.memory_gib=3",
        "data.max_length=64",
        "data.batching=bucketed",
        "data.cache_prefix=true lora=none",
        "head=bradley_terry_ties",
        "head=causal head.words=[A,B,tie]",
        "trainer.micro_batch=2",
        "trainer.eval_batch=16",
    ],
)
def test_what_the_backbone_and_its_batches_are_must_be_equal(override: str) -> None:
    other = pack_key(tiny_config(*override.split()))
    assert other is not None and other != pack_key(tiny_config())


def test_trials_over_kept_states_share_a_pack_with_those_over_the_same_states() -> None:
    kept = [pack_key(tiny_config("data.cache_prefix=true", one)) for one in ("lora.last_k=1", "lora=none")]
    again = pack_key(tiny_config("data.cache_prefix=true", "lora.layers=[1]", "lora.rank=4"))
    assert kept[0] == again and None not in kept and kept[0] != kept[1]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lora=dora", "alone: dora trains over PEFT's own layers"),
        ("lora=olora", "alone: olora trains over PEFT's own layers"),
        ("lora=vera", "alone: vera trains over PEFT's own layers"),
        ("lora.bias=all model.shape.model_type=qwen2", "alone: lora with its biases trains over PEFT's own layers"),
        (
            "model.shape.model_type=deberta-v2 model.shape.num_key_value_heads=2 lora=none head=sequence",
            "alone: an encoder's own dropout is drawn for the whole batch",
        ),
        ("lora=full", "alone: lora=full trains the backbone itself"),
    ],
)
def test_other_adapters_train_alone_and_the_plan_says_so(override: str, said: str) -> None:
    alone = tiny_config(*override.split())
    assert pack_key(alone) is None
    assert [pack.why for pack in plan_packs([alone, alone])] == [said, said]


# ------------------------------------------------------------------------------------------------------ the plan


def test_every_trial_is_in_one_pack_and_packs_follow_the_order_of_the_trials() -> None:
    kinds = [("lora", 4), ("dora", 4), ("lora", 8), ("dora", 8), ("lora", 64), ("dora", 64)]
    configs = [compose([*ON_T4, f"lora={kind}", f"lora.rank={rank}"]) for kind, rank in kinds]
    configs += seeds(3, *ON_T4, "precision=fp16")
    packs = plan_packs(configs)
    assert sorted(number for pack in packs for number in pack.trials) == list(range(len(configs)))
    assert [pack.trials for pack in packs] == [(0, 2, 4), (1,), (3,), (5,), (6, 7, 8)]
    assert packs[0].why.startswith("3 trials: ") and "x by prediction" in packs[0].why and "GiB" in packs[0].why


def test_what_gains_nothing_runs_one_after_another() -> None:
    configs = seeds(4, *MIDDLE, "precision=bf16", *ROWS_OF_2048)
    packs = plan_packs(configs)
    assert [pack.trials for pack in packs] == [(0,), (1,), (2,), (3,)]
    assert "together are predicted 1.0" in packs[0].why and "under 1.1x" in packs[0].why
    assert packs[-1].why == "alone: no other open trial has the same model, precision and rows"


def test_a_pack_grows_no_further_than_it_gains() -> None:
    configs = seeds(40, *ON_T4)
    sizes = [len(pack.trials) for pack in plan_packs(configs)]
    assert sum(sizes) == 40 and 4 <= max(sizes) <= MOST
    assert max(sizes) - min(sizes) <= 2  # evenly shared: no trial is left over


def test_a_pack_is_cut_where_the_memory_ends_and_forced_it_says_so() -> None:
    words = [*ON_T4, "data.max_length=1024", "trainer.effective_batch=1"]
    configs = seeds(8, *words)
    whole = choose_pack(configs, pack=8)
    assert len(whole.trials) == 8 and whole.why.startswith("8 trials, as sweep.pack=8 asks: 1.")
    assert whole.memory is not None
    limit = whole.memory.total * 0.6 / 2**30
    tight = [replace(one, device=replace(one.device, memory_limit_gib=limit)) for one in configs]
    cut = choose_pack(tight, pack=8)
    assert 1 < len(cut.trials) < 8 and cut.why.endswith(f"{len(cut.trials) + 1} would not fit")
    assert len(choose_pack(configs, pack=8, slots=2).trials) <= len(whole.trials)
    smallest = memory_of(configs[0], planned_architecture(configs[0].model)).total / 2**30
    full = [replace(one, device=replace(one.device, memory_limit_gib=smallest * 1.01)) for one in configs]
    for pack in ("auto", 8):
        chosen = choose_pack(full, pack=pack)
        assert chosen.trials == (0,) and chosen.why.startswith("alone: two would need ")


def test_sweep_pack_1_turns_it_off() -> None:
    configs = seeds(3, *ON_T4)
    assert {pack.why for pack in plan_packs(configs, pack=1)} == {"alone: sweep.pack=1"}
    assert [len(pack.trials) for pack in plan_packs(configs, pack=2)] == [2, 1]


def test_slots_share_the_trials_and_the_device() -> None:
    configs = seeds(6, *ON_T4)
    assert [len(pack.trials) for pack in plan_packs(configs, pack=16, slots=3)] == [2, 2, 2]
    alone = plan_packs(configs, slots=6)
    assert {pack.why for pack in alone} == {"alone: every slot has its own trial"}
    assert (fair_share(7, 2), fair_share(1, 4), fair_share(5, None)) == (4, 1, 5)


def test_trials_with_the_same_batches_and_like_ranks_come_together_where_there_is_a_choice() -> None:
    words = [["lora.rank=8"], ["data.order_seed=1", "lora.rank=8"], ["lora.rank=128"], ["lora.rank=9"]]
    configs = [compose([*ON_T4, *more]) for more in words]
    assert [choose_pack(configs, pack=size).trials for size in (2, 3, 4)] == [(0, 3), (0, 3, 2), (0, 1, 3, 2)]


def test_trials_read_the_same_batches_by_seed_unless_the_order_has_a_seed_of_its_own() -> None:
    following = [compose([*ON_T4, *more]) for more in (["seed=0"], ["seed=1"], ["seed=0", "lora.rank=8"])]
    (pack,) = plan_packs(following, pack=3)
    assert ", rows in 2 orders" in pack.why and "kept" not in pack.why
    (pack,) = plan_packs([compose([*ON_T4, "data.order_seed=0", f"seed={seed}"]) for seed in range(3)], pack=3)
    assert "orders" not in pack.why
    kept = [compose([*ON_T4, "lora=none", "data.cache_prefix=true", f"seed={seed}"]) for seed in range(3)]
    (pack,) = plan_packs(kept, pack=3)
    assert pack.why.endswith(", rows in 3 orders, states kept per row")


def test_a_free_place_goes_to_a_trial_of_the_same_key_that_fits() -> None:
    running = seeds(2, *ON_T4)
    dora, other = compose([*ON_T4, "lora=dora"]), compose([*ON_T4, "precision=fp16"])
    fitting, shuffled = compose([*ON_T4, "seed=9", "data.order_seed=0"]), compose([*ON_T4, "data.order_seed=5"])
    assert joins(running, [dora, other]) is None
    assert joins(running, [dora, shuffled, other, fitting]) == 3
    assert joins(running, [dora, shuffled, other]) == 1
    limit = pack_memory(running, planned_architecture(running[0].model)).total / 2**30

    def limited(config: Config) -> Config:
        return replace(config, device=replace(config.device, memory_limit_gib=limit))

    assert joins([limited(one) for one in running], [limited(fitting)]) is None
    assert joins([limited(running[0])], [limited(fitting)]) == 0


def test_who_would_have_the_others_run_frozen_blocks_again_waits_unless_the_size_is_forced() -> None:
    rows = ["precision=nf4", "data.max_length=32", "trainer.micro_batch=1", "trainer.effective_batch=1"]
    last_blocks = seeds(4, *MIDDLE, *rows, "lora.last_k=2")
    all_blocks = seeds(8, *MIDDLE, *rows)
    assert joins(last_blocks[:3], all_blocks) is None
    assert joins(last_blocks[:3], [*all_blocks, last_blocks[3]]) == len(all_blocks)
    assert joins(last_blocks[:3], all_blocks, pack=8) == 0
    assert all(joins(all_blocks[:size], all_blocks[size:]) == 0 for size in range(1, len(all_blocks)))
    few_tokens = ["model=danube3_4b", "device=h200", "precision=nf4", "data.max_length=128", *rows[2:]]
    assert joins(seeds(3, *few_tokens, "lora.last_k=6"), seeds(1, *few_tokens)) == 0  # there the launches are all


def test_the_lengths_of_the_data_are_used_where_they_are_known() -> None:
    configs = seeds(4, *MIDDLE, *ROWS_OF_2048)
    assert len(choose_pack(configs).trials) == 1
    short = choose_pack(configs, lengths=lambda config: Lengths(longest=64, mean=24.0))
    assert len(short.trials) == 4 and short.gain > 1.5


# ------------------------------------------------------------------------------------------------------ the gain


@pytest.mark.usefixtures("bf16_host")
@pytest.mark.parametrize(
    ("tokens", "least", "most"), [(16, 2.2, 3.1), (32, 1.8, 2.6), (128, 1.2, 1.5), (1024, 1.0, 1.1)]
)
def test_on_a_cpu_with_bf16_the_predicted_gain_is_what_was_measured(tokens: int, least: float, most: float) -> None:
    one = of_tokens(tokens, *MIDDLE, "precision=nf4")
    assert least <= gain_of(*[one] * 4) <= gain_of(*[one] * 8) <= most


@pytest.mark.parametrize(
    ("device", "model", "gains"),
    [
        ("kaggle_t4", "danube3_500m", (2.1, 1.24, 1.23, 1.06, 1.01)),
        ("rtx4090", "danube3_500m", (4.3, 1.34, 1.32, 1.08, 1.01)),
    ],
)
def test_on_gpus_the_gain_is_within_a_factor_of_two_of_another_roofline(
    device: str, model: str, gains: tuple[float, ...]
) -> None:
    shapes = [(1, 128), (4, 128), (1, 512), (4, 512), (8, 2048)]
    found = []
    for rows, tokens in shapes:
        words = [f"device={device}", "device.launch_us=10", f"model={model}", "precision=nf4"]
        words.append("precision.gradient_checkpointing=true")
        config = of_tokens(tokens, *words, f"trainer.micro_batch={rows}", f"trainer.effective_batch={rows}")
        found.append(gain_of(*[config] * 8))
    assert all(0.5 <= one / other <= 2 for one, other in zip(found, gains, strict=True))
    assert found == sorted(found, reverse=True) and found[-1] < 1.1


@pytest.mark.parametrize(
    ("model", "rows", "tokens", "measured"),
    [
        ("danube3_500m", 1, 128, (135.7, 33.3, 20.4)),
        ("danube3_500m", 4, 128, (135.2, 44.6, 26.5)),
        ("danube3_500m", 1, 512, (135.1, 38.5, 20.3)),
        ("danube3_500m", 4, 512, (139.1, 37.9, 22.4)),
        ("danube3_500m", 1, 2048, (115.2, 36.7, 20.5)),
        ("danube3_500m", 8, 512, (139.4, 40.0, 33.8)),
        ("danube3_4b", 1, 128, (177.4, 56.8, 30.0)),
        ("danube3_4b", 1, 512, (240.1, 60.3, 31.1)),
    ],
)
def test_on_an_h200_a_step_takes_what_was_measured(
    model: str, rows: int, tokens: int, measured: tuple[float, float, float]
) -> None:
    words = ["device=h200", f"model={model}", "precision=nf4", "head=sequence", f"trainer.micro_batch={rows}"]
    config = of_tokens(tokens, *words, f"trainer.effective_batch={rows}")
    for trials, each_ms in zip((1, 4, 8), measured, strict=True):
        pack = pack_seconds(
            [config] * trials, planned_architecture(config.model), config.device, tokens_per_row=float(tokens)
        )
        assert 0.67 <= pack.micro_batch * 1e3 / trials / each_ms <= 1.5


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_layers_below_the_adapted_ones_are_computed_once_for_all(k: int) -> None:
    one = of_tokens(2048, *MIDDLE, "precision=bf16", f"lora.last_k={k}")
    layers, trials = 8, 8
    assert gain_of(*[one] * trials) == pytest.approx((layers + k) / ((layers - k) / trials + 2 * k), rel=0.1)


def test_without_adapters_a_pack_costs_hardly_more_than_a_trial() -> None:
    one = of_tokens(512, *MIDDLE, "lora=none")
    assert gain_of(*[one] * 8) > 6


def test_batches_that_differ_share_nothing_and_are_padded_to_each_other() -> None:
    config = of_tokens(512, *MIDDLE, "lora=none")
    model, device = planned_architecture(config.model), planned_device(config.device)
    others = [replace(config, data=replace(config.data, order_seed=seed)) for seed in range(4)]
    shared = pack_seconds([config] * 4, model, device, tokens_per_row=100).step
    assert pack_seconds(others, model, device, tokens_per_row=100).step > 4 * shared


def test_a_cached_prefix_runs_in_the_first_epoch_alone() -> None:
    kept = of_tokens(512, *MIDDLE, "lora=none", "data.cache_prefix=true", "trainer.epochs=10")
    again = of_tokens(512, *MIDDLE, "lora=none", "trainer.epochs=10")
    model, device = planned_architecture(kept.model), planned_device(kept.device)
    cached, computed = (seconds_of(one, model, device, tokens_per_row=512).step for one in (kept, again))
    assert cached < computed / 5


def test_a_trial_that_makes_longer_steps_counts_by_its_micro_batches() -> None:
    config = of_tokens(32, *MIDDLE)
    longer = replace(config, trainer=replace(config.trainer, effective_batch=4))
    model, device = planned_architecture(config.model), planned_device(config.device)
    seconds = pack_seconds([config, longer], model, device, tokens_per_row=32)
    assert seconds.micro_batches == 2.5 and seconds.step == pytest.approx(2.5 * seconds.micro_batch)


# ------------------------------------------------------------------------------------------- the first steps' word


def test_measured_seconds_correct_what_is_predicted_for_other_sizes() -> None:
    corrections = Corrections()
    assert corrections.ratio("a", 3) == corrections.ratio(None, 1) == 1.0
    corrections.observe("a", 8, predicted_s=1.0, measured_s=2.0)
    assert corrections.ratio("a", 1) == corrections.ratio("a", 16) == 2.0 and corrections.ratio("b", 8) == 1.0
    corrections.observe("a", 4, predicted_s=1.0, measured_s=1.0)
    assert [corrections.ratio("a", trials) for trials in (1, 4, 6, 8, 9)] == [1.0, 1.0, 1.5, 2.0, 2.0]


def test_a_pack_that_was_slower_than_predicted_is_not_made_again() -> None:
    configs = seeds(8, *ON_T4)
    key = pack_key(configs[0])
    assert key is not None

    def chosen(**measured: float) -> PlannedPack:
        corrections = Corrections()
        for trials, factor in measured.items():
            corrections.observe(key, int(trials[1:]), predicted_s=1.0, measured_s=factor)
        return choose_pack(configs, corrections=corrections)

    first = choose_pack(configs)
    assert first.step_s is not None and len(first.trials) > 1
    slower = chosen(_8=3.0)  # everything is: no word on the gain
    assert slower.gain == pytest.approx(first.gain) and slower.step_s == pytest.approx(3 * first.step_s)
    assert len(chosen(_1=1.0, _8=6.5).trials) < len(first.trials)
    assert chosen(_1=1.0, _2=2.0, _4=4.0, _8=8.0).trials == (0,)
    assert chosen(_1=2.0, _8=1.0).gain > first.gain


# --------------------------------------------------------------------------------------------------------- memory


def test_a_pack_holds_the_weights_once_and_the_rest_for_every_trial() -> None:
    one = compose([*ON_T4, "data.max_length=512"])
    alone, four = memory(one), memory(*[one] * 4)
    assert four.weights == alone.weights and four.context == alone.context
    for kind in ("trained", "gradients", "optimizer"):
        assert getattr(four, kind) == pytest.approx(4 * getattr(alone, kind))
    assert four.activations == pytest.approx(4 * alone.activations, rel=0.01)
    assert memory(one) == memory_of(one, planned_architecture(one.model))


def test_a_block_keeps_for_all_what_it_keeps_for_one() -> None:
    first = compose([*ON_T4, "lora.last_k=2", "lora.targets=qv"])
    deeper = compose([*ON_T4, "lora.last_k=8", "lora.targets=mlp"])
    assert memory(first, deeper).activations > 1.9 * memory(deeper).activations > memory(first).activations
    assert memory(first, compose([*ON_T4, "lora=none"])).activations == pytest.approx(
        2 * memory(first).activations, rel=0.05
    )


def test_every_trial_keeps_adapter_and_states_of_its_own() -> None:
    configs = [compose([*ON_T4, f"lora.rank={rank}"]) for rank in (64, 4, 8, 8, 48)]
    configs.append(compose([*ON_T4, "lora=none"]))
    alone = [memory(config) for config in configs]
    together = memory(*configs)
    for kind in ("trained", "gradients", "optimizer"):
        assert getattr(together, kind) == pytest.approx(sum(getattr(one, kind) for one in alone))


def test_an_optimizer_steps_trial_by_trial() -> None:
    free = ["optimizer=schedulefree", "schedule=constant"]
    one = compose([*ON_T4, *free, "data.max_length=16", "lora.rank=512", "precision=bf16", "device=h200"])
    alone, four = memory(one), memory(*[one] * 4)
    assert alone.moment == four.moment == "update" and alone.workspace == four.workspace


def test_trials_over_the_same_frozen_blocks_go_together() -> None:
    configs = [compose([*ON_T4, *more]) for more in (["lora.last_k=4"], [], ["lora.last_k=4", "lora.rank=64"], [])]
    packs = plan_packs(configs, pack=2)
    assert sorted(pack.trials for pack in packs) == [(0, 2), (1, 3)]
