"""Evaluation goes by tokens: the same losses as row by row, in fewer forward passes."""

from collections.abc import Callable

import pytest
import torch
from workbench import build, evaluate

from danube_sweep.config.facts.evaluation import LEAST_TOKENS, eval_tokens
from danube_sweep.config.schema import Config
from danube_sweep.training.evaluate import evaluate_together, evaluation_batches

Tiny = Callable[..., Config]


@pytest.mark.parametrize("layout", ["flat", "padded"])
def test_it_gives_the_losses_of_rows_one_by_one(tiny: Tiny, layout: str) -> None:
    parts = build(tiny("precision=fp32", f"data.layout={layout}", "data.rows=60", "trainer.micro_batch=1"))
    rows, pad_id, backbone = parts.prepared.parts["validation"], parts.prepared.pad_id, parts.backbone
    passes: list[int] = []
    backbone.body.register_forward_hook(lambda *_: passes.append(1))
    batches = list(evaluation_batches(parts.config, rows, pad_id, backbone))
    (found,) = evaluate_together(
        backbone,
        [parts.head],
        rows,
        hidden=lambda batch: [backbone.hidden(batch.input_ids_BT, batch.mask_BT)],
        batches=batches,
    )
    assert len(passes) == len(batches) < len(rows.ids) / 2
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(rows.ids)))
    assert all(batch.input_ids_BT.numel() <= LEAST_TOKENS for batch in batches)
    alone = evaluate(backbone, parts.head, rows, batch_rows=1, pad_id=pad_id)
    torch.testing.assert_close(found.losses_N, alone.losses_N, rtol=0, atol=1e-6)
    assert found.metrics == pytest.approx(alone.metrics, abs=1e-6)


def test_tokens_at_a_time_follow_the_micro_batch_and_the_kind_of_device(tiny: Tiny) -> None:
    few, many = tiny("trainer.micro_batch=1"), tiny("trainer.micro_batch=8")
    assert eval_tokens(few, 96, on_cpu=True) == LEAST_TOKENS
    assert eval_tokens(few, 96, on_cpu=False) == 96
    assert eval_tokens(many, 512, on_cpu=True) == eval_tokens(many, 512, on_cpu=False) == 8 * 512


def test_rows_that_are_given_are_kept_to(tiny: Tiny) -> None:
    parts = build(tiny("precision=fp32", "data.rows=40", "trainer.eval_batch=3"))
    rows = parts.prepared.parts["validation"]
    batches = list(evaluation_batches(parts.config, rows, parts.prepared.pad_id, parts.backbone))
    assert {len(batch.rows) for batch in batches[:-1]} == {3}
