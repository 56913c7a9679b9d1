"""Which rows come at which step: a function of the step alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from workbench import CPU, rows_of

from danube_sweep.config.schema import Config
from danube_sweep.data.encoded import Encoded
from danube_sweep.training.step_plan import Collator, MicroBatch, StepPlan, random_state

Tiny = Callable[..., Config]


def rows(number: int, weights: list[float] | None = None) -> Encoded:
    generator = np.random.Generator(np.random.PCG64(number))
    lengths = generator.integers(3, 30, number)
    return rows_of([generator.integers(3, 500, length).tolist() for length in lengths], weights=weights)


def plan_of(config: Config, train: Encoded | None = None) -> StepPlan:
    return StepPlan(config, train or rows(26), pad_id=0)


def told(micro: MicroBatch) -> tuple[object, ...]:
    return (micro.step, micro.index, micro.share, micro.last, micro.batch.rows.tolist())


def rows_by_step(micros: list[MicroBatch]) -> dict[int, list[int]]:
    steps: dict[int, list[int]] = {}
    for micro in micros:
        steps.setdefault(micro.step, []).extend(micro.batch.rows.tolist())
    return steps


@pytest.mark.parametrize("batching", ["bucketed", "shuffled", "packed"])
def test_the_plan_from_any_step_is_the_tail_of_the_plan_from_the_first(tiny: Tiny, batching: str) -> None:
    config = tiny(f"data.batching={batching}", "trainer.epochs=3")
    plan = plan_of(config)
    whole = list(plan.micro_batches(0, Collator(CPU)))
    assert plan.total_steps == 12 and plan.steps_per_epoch == 4
    for start in range(plan.total_steps + 1):
        tail = [micro for micro in whole if micro.step >= start]
        # A plan of another process, which has drawn nothing before.
        fresh = list(plan_of(config).micro_batches(start, Collator(CPU)))
        assert [told(micro) for micro in fresh] == [told(micro) for micro in tail]
        assert all(
            torch.equal(one.batch.input_ids_BT, other.batch.input_ids_BT)
            for one, other in zip(fresh, tail, strict=True)
        )


def test_packed_steps_hold_the_rows_of_shuffled_ones(tiny: Tiny) -> None:
    packed, shuffled = (
        [told(micro) for micro in plan_of(tiny(f"data.batching={name}")).micro_batches(0, Collator(CPU))]
        for name in ("packed", "shuffled")
    )
    assert packed == shuffled


def test_every_epoch_holds_every_row_once_in_another_order(tiny: Tiny) -> None:
    steps = rows_by_step(list(plan_of(tiny("trainer.epochs=2")).micro_batches(0, Collator(CPU))))
    first = [row for step in range(4) for row in steps[step]]
    second = [row for step in range(4, 8) for row in steps[step]]
    assert sorted(first) == sorted(second) == list(range(26)) and first != second


def test_the_order_follows_the_seed_unless_it_has_one_of_its_own(tiny: Tiny) -> None:
    def order(*overrides: str) -> list[tuple[object, ...]]:
        return [told(micro) for micro in plan_of(tiny(*overrides)).micro_batches(0, Collator(CPU))]

    assert order() == order("optimizer.lr=1", "precision=nf4", "data.split_seed=3") != order("data.order_seed=1")
    assert order("seed=5") == order("data.order_seed=5") != order() == order("seed=5", "data.order_seed=0")


@pytest.mark.parametrize("weights", [None, [float(1 + number % 7) for number in range(26)]])
def test_every_unit_of_weight_counts_alike_in_the_gradients_of_an_epoch(
    tiny: Tiny, weights: list[float] | None
) -> None:
    # 26 rows in steps of 8, 8, 8 and 2: the mean step of an epoch that has no smaller one counts 1.
    train = rows(26, weights)
    micros = list(plan_of(tiny("trainer.micro_batch=2", "trainer.epochs=1"), train).micro_batches(0, Collator(CPU)))
    by_step, parts = rows_by_step(micros), dict[int, list[float]]()
    for micro in micros:
        own, step = (float(train.weights[chosen].sum()) for chosen in (micro.batch.rows, by_step[micro.step]))
        assert micro.share == pytest.approx(own / float(train.weights.mean()) / 8)
        assert micro.of_step == pytest.approx(own / step)
        parts.setdefault(micro.step, []).append(micro.of_step)
    assert all(sum(values) == pytest.approx(1, abs=1e-12) for values in parts.values())
    assert sum(micro.share for micro in micros) == pytest.approx(26 / 8)


def test_an_epoch_of_fewer_rows_than_a_step_has_steps_of_full_weight(tiny: Tiny) -> None:
    micros = list(plan_of(tiny("trainer.micro_batch=2"), rows(5)).micro_batches(0, Collator(CPU)))
    assert [micro.share for micro in micros[:3]] == pytest.approx([2 / 5, 2 / 5, 1 / 5])


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("batching", ["shuffled", "bucketed"])
def test_the_largest_micro_batch_is_the_largest_of_those_to_come(tiny: Tiny, batching: str, flat: bool) -> None:
    plan = plan_of(tiny(f"data.batching={batching}", "trainer.epochs=3"))
    for start in (0, 5, plan.total_steps - 1):
        to_come = [micro.batch for micro in plan.micro_batches(start, Collator(CPU))]
        most = max(batch.tokens if flat else batch.input_ids_BT.numel() for batch in to_come)
        found = plan.largest(start, Collator(CPU), flat=flat).batch
        assert (found.tokens if flat else found.input_ids_BT.numel()) == most


def test_padding_is_counted_over_the_first_epoch(tiny: Tiny) -> None:
    plan = plan_of(tiny("trainer.epochs=1"))
    batches = [micro.batch for micro in plan.micro_batches(0, Collator(CPU))]
    padded, tokens = (sum(sizes) for sizes in zip(*((b.input_ids_BT.numel(), b.tokens) for b in batches), strict=True))
    assert plan.padding() == pytest.approx(padded / tokens) and padded > tokens


def test_only_the_last_micro_batch_of_a_step_is_the_last(tiny: Tiny) -> None:
    micros = list(plan_of(tiny("trainer.micro_batch=2")).micro_batches(0, Collator(CPU)))
    for here, after in zip(micros, [*micros[1:], None], strict=True):
        assert here.last == (after is None or after.step != here.step)


@pytest.mark.parametrize("batching", ["bucketed", "shuffled", "packed"])
def test_a_smaller_micro_batch_leaves_each_steps_rows_alone(tiny: Tiny, batching: str) -> None:
    by_size = [
        rows_by_step(
            list(
                plan_of(tiny(f"trainer.micro_batch={size}", f"data.batching={batching}")).micro_batches(
                    0, Collator(CPU)
                )
            )
        )
        for size in (8, 4, 2, 1)
    ]
    assert by_size[0] == by_size[1] == by_size[2] == by_size[3]


@pytest.mark.parametrize(
    ("overrides", "total", "validate_every"),
    [
        (["trainer.epochs=1"], 4, 1),
        (["trainer.epochs=3"], 12, 3),
        (["trainer.epochs=2.5"], 10, 2),
        (["trainer.epochs=0.3"], 2, 1),
        (["trainer.epochs=0.01"], 1, 1),
        (["trainer.max_steps=7"], 7, 2),
        (["trainer.max_steps=7", "trainer.epochs=9"], 7, 2),
        (["trainer.max_steps=1"], 1, 1),
        (["trainer.max_steps=7", "trainer.validate_every=3"], 7, 3),
        (["trainer.max_steps=7", "trainer.validate_every=100"], 7, 100),
    ],
)
def test_steps_and_validations_follow_from_epochs(
    tiny: Tiny, overrides: list[str], total: int, validate_every: int
) -> None:
    plan = plan_of(tiny(*overrides))
    assert (plan.total_steps, plan.validate_every) == (total, validate_every)
    validated = [step for step in range(1, total + 1) if plan.validates_after(step)]
    assert validated[-1] == total and len(validated) <= 5
    assert validated == sorted({*range(validate_every, total + 1, validate_every), total})
    assert len({micro.step for micro in plan.micro_batches(0, Collator(CPU))}) == total


def test_fewer_rows_than_a_batch_are_one_step_an_epoch(tiny: Tiny) -> None:
    plan = plan_of(tiny("trainer.epochs=3", "trainer.micro_batch=2"), rows(5))
    assert (plan.steps_per_epoch, plan.total_steps) == (1, 3)
    assert [len(micro.batch.rows) for micro in plan.micro_batches(2, Collator(CPU))] == [2, 2, 1]


def test_epochs_are_counted_in_steps(tiny: Tiny) -> None:
    plan = plan_of(tiny("trainer.epochs=2"))
    assert [plan.epoch_at(step) for step in (0, 1, 4, 8)] == [0, 0.25, 1, 2]


def test_every_micro_batch_draws_from_a_seed_of_its_own() -> None:
    places = [(seed, step, index) for seed in range(4) for step in range(60) for index in range(16)]
    states = {random_state(*place) for place in places}
    assert len(states) == len(places) and all(0 <= state < 2**63 for state in states)
    assert 0 <= random_state(10**15, 10**9, 9) < 2**63


def test_a_step_is_padded_to_its_own_longest_row(tiny: Tiny) -> None:
    train = rows(26)
    for micro in plan_of(tiny(), train).micro_batches(0, Collator(CPU)):
        assert micro.batch.input_ids_BT.shape[1] == max(len(train.tokens[row]) for row in micro.batch.rows)
        assert micro.batch.tokens == int(micro.batch.mask_BT.sum())
