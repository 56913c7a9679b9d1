"""device.count in the plan: each device's share of a step, its memory, and the time to sum gradients."""

from dataclasses import replace

import pytest
from conftest import compose, tiny_config
from workbench import CPU, packed

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.planner.joint_pass import walk_of
from danube_sweep.planner.memory import memory_of
from danube_sweep.planner.pack_plan import Lengths, full_rows
from danube_sweep.planner.parameter_bytes import adapter_tensors
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device, slots_share
from danube_sweep.planner.several_devices import BUCKET, count_of, exchange_bytes, share_of
from danube_sweep.planner.slots_or_ranks import LEAST_GAIN, Ways, choose_count, least_count
from danube_sweep.planner.step_seconds import Seconds, seconds_of
from danube_sweep.planner.what_fits import fit_of
from danube_sweep.training.ranks import Ranks
from danube_sweep.training.step_plan import Collator, StepPlan
from danube_sweep.training.trial import ActiveTrial

T4 = ["device=kaggle_t4x2", "model=danube3_500m", "precision=nf4", "data.max_length=2048"]


def trial(*words: str) -> Config:
    return compose(["device=h200", "trainer.max_steps=100", *words])


def on(config: Config, count: int | str) -> Config:
    return replace(config, device=replace(config.device, count=count))


def seconds(config: Config) -> Seconds:
    return seconds_of(config, planned_architecture(config.model), planned_device(config.device), tokens_per_row=1024)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> ActiveTrial:
    """A trial with its training rows."""
    _, (one,) = packed([tiny_config()], tmp_path_factory.mktemp("rows"))
    return one


@pytest.mark.parametrize("adapter", [["lora.dropout=0.1"], ["lora=dora", "lora.dropout=0.1"]], ids=["by row", "whole"])
def test_the_planned_share_is_what_the_busiest_rank_passes(rows: ActiveTrial, adapter: list[str]) -> None:
    config = tiny_config(*adapter)
    model = planned_architecture(config.model)
    for micro, effective, count in ((2, 8, 2), (2, 6, 2), (6, 6, 4), (3, 12, 3), (2, 10, 4), (5, 5, 2), (2, 4, 4)):
        trainer = replace(config.trainer, micro_batch=micro, effective_batch=effective)
        divided, passes = replace(config, trainer=trainer), []
        for rank in range(count):
            plan = StepPlan(divided, rows.plan.train, rows.plan.pad_id, Ranks(rank, count))
            step = [one for one in plan.micro_batches(0, Collator(CPU)) if one.step == 0]
            passes.append(sorted((len(one.batch.rows) for one in step), reverse=True))
        share = share_of(divided, model, replace(config.device, count=count))
        assert [micro] * int(share.whole) + [share.rows] * share.parts == max(passes)


def test_a_step_is_divided_and_the_gradients_are_summed_over_the_link() -> None:
    config = trial("trainer.micro_batch=4", "trainer.effective_batch=16", "device.link_gb_s=25")
    one, two = seconds(config), seconds(on(config, 2))
    trained = adapter_tensors(walk_of(config, planned_architecture(config.model), 1024), config.head)
    sent, moved = trained.elements * 4 / 25e9, 4 * trained.elements * 4 / 4.8e12  # 2 (n - 1) / n is 1 for two
    exchange = sent + moved + sum(count for _, count in trained.counts) * 35e-6
    assert two.exchange == pytest.approx(exchange) and one.exchange == 0
    update = one.step - 4 * one.passes
    assert two.step == pytest.approx(2 * one.passes + update + exchange)
    four = seconds(on(config, 4))
    assert four.step - one.passes - update == pytest.approx(1.5 * sent + moved + (exchange - sent - moved))
    assert seconds(on(config, "auto")) == one == seconds(on(config, 1))


def test_a_micro_batch_that_all_devices_share_takes_the_memory_of_a_part() -> None:
    whole, half = (compose([*T4, "trainer.effective_batch=8", f"trainer.micro_batch={rows}"]) for rows in (8, 4))
    model, device = planned_architecture(whole.model), whole.device
    memory = memory_of(on(whole, 2), model)
    assert memory.activations == memory_of(half, model).activations < memory_of(whole, model).activations / 1.9
    assert memory.weights == memory_of(whole, model).weights
    assert not fit_of(whole, model, device).fits and fit_of(whole, model, replace(device, count=2)).fits
    assert memory_of(on(half, 2), model) == memory_of(half, model)  # two whole ones are dealt out
    encoder = compose(["device=h200", "model=deberta_v3_base", "trainer.micro_batch=8", "trainer.effective_batch=8"])
    known = planned_architecture(encoder.model)
    assert memory_of(on(encoder, 2), known).activations == memory_of(encoder, known).activations  # drawn for all rows


def test_the_sum_needs_a_bucket_of_the_gradients() -> None:
    device = replace(compose(["device=h200"]).device, count=2)
    assert exchange_bytes(1000, device) == 4000 and exchange_bytes(2.0 * BUCKET, device) == 4 * BUCKET
    assert exchange_bytes(1000, device, largest=3.0 * BUCKET) == 12 * BUCKET
    assert exchange_bytes(1000, replace(device, count=1)) == 0


def test_how_many_devices_a_plan_counts() -> None:
    device = compose([*T4]).device
    assert [count_of(replace(device, count=count)) for count in (1, 2, "all", "auto")] == [1, 2, 2, 1]
    assert slots_share(replace(device, count=2), 1).memory_gib == device.memory_gib
    assert slots_share(replace(device, count=2), 2).memory_gib == pytest.approx(device.memory_gib / 2)
    assert count_of(replace(compose(["device=cpu"]).device, count="all")) == 1


def test_neither_the_micro_batch_nor_the_hash_depends_on_the_count() -> None:
    words = [*T4, "model.init=random", "trainer.micro_batch=auto"]
    trials = [compose([*words, f"device.count={count}"]) for count in (1, 2, "all", "auto")]
    assert len({one.trainer.micro_batch for one in trials}) == 1 == len({trial_hash(one) for one in trials})


def test_a_plan_shows_both_memory_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*T4, "device.count=2", "trainer.effective_batch=8"]
    assert main.main(["plan", *words, "trainer.micro_batch=8"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 devices: each passes 1 part of 4 rows in a step and needs 9." in shown
    assert "to sum gradients (10 GB/s, a guess for PCIe); one alone takes" in shown
    assert main.main(["plan", "-m", *words, "trainer.micro_batch=4,2", "device.link_gb_s=6"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "each passes 1 micro-batch of 4 rows" in shown and "each passes 2 micro-batches of 2 rows" in shown
    assert "(device.link_gb_s=6)" in shown


# ---------------------------------------------------------------------------------------------------- slots or ranks


def ways(gpus: int = 2, **more: object) -> Ways:
    return Ways(gpus, rows=lambda _config: 1000, lengths=full_rows, **more)  # type: ignore[arg-type]


LONG = ["trainer.micro_batch=4", "trainer.effective_batch=32"]


def test_one_long_trial_takes_all_gpus_and_many_trials_a_gpu_each() -> None:
    config = trial(*LONG)
    one = choose_count([config], ways(slots=1))
    assert one.count == 2 and one.why is not None
    assert one.why.startswith("2 GPUs train it together: predicted 1.9")
    many = choose_count([config] * 8, ways())
    assert many.count == 1 and many.last == 0 and many.why is not None
    assert many.why.startswith("a GPU for each trial: 2 together for each are predicted 0.9")
    assert choose_count([config] * 17, ways()).why == "a GPU for each trial, as there are more than 16 for 2 GPUs"
    assert choose_count([config], ways(gpus=1)) == choose_count([], ways()) == choose_count([config] * 2, ways(slots=2))
    assert choose_count([config], ways(gpus=1)).why is None


def test_the_last_trial_of_an_odd_number_takes_all_gpus() -> None:
    config = trial(*LONG)
    left = choose_count([config] * 3, ways(may_leave=True))
    assert (left.count, left.last, left.last_count) == (1, 1, 2)
    gain = 2 / (1 + seconds(on(config, 2)).step / seconds(config).step)
    assert left.why == (
        f"a GPU for each trial, and 2 together for the last trial: predicted {gain:.2f} times as fast as a GPU for "
        "each to the end"
    )
    together = choose_count([config] * 3, ways())  # a search cannot know its last trial
    assert (together.count, together.last) == (2, 0)


def test_a_trial_that_does_not_fit_one_gpu_takes_several() -> None:
    large = compose([*T4, "trainer.effective_batch=8", "trainer.micro_batch=8"])
    small = compose([*T4, "trainer.effective_batch=8", "trainer.micro_batch=1"])
    chosen = choose_count([small] * 70 + [large], ways())
    assert chosen.count == 2 and chosen.why is not None
    assert chosen.why.startswith("2 GPUs train each trial together: 1 of 71 trials would need 18.")
    assert (least_count(large, ways()), least_count(small, ways())) == (2, 1)
    assert least_count(large, Ways(2, lambda _: 1, lambda _: Lengths(300, 200.0))) == 1  # its rows are short
    assert least_count(large, ways(gpus=1)) is None


def test_a_trial_whose_other_devices_would_wait_stays_on_one() -> None:
    config = trial("lora=dora", "lora.dropout=0.1", "trainer.micro_batch=16", "trainer.effective_batch=16")
    chosen = choose_count([config], ways(slots=1))
    assert chosen.count == 1 and chosen.why is not None
    assert "one GPU trains it: 2 together are predicted only 0.9" in chosen.why
    assert seconds(config).step / seconds(on(config, 2)).step < LEAST_GAIN


def test_a_plan_says_what_auto_would_choose(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*T4, "device.count=auto", "trainer.effective_batch=8", "trainer.max_steps=50"]
    assert main.main(["plan", *words, "trainer.micro_batch=8"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "auto: 2 GPUs train it together: it would need 18.3 of 14.7 GiB on one, and 2 need 9." in shown
    assert main.main(["plan", "-m", *words, "trainer.micro_batch=2", "seed=0,1,2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "device.count=auto: " in shown and "of packs and single trials: about" in shown
    assert main.main(["plan", "device=cpu", "device.count=auto"]) == 0
    assert "auto" not in capsys.readouterr().out
