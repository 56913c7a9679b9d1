"""What each head promises: exact symmetries, probabilities that sum to 1, starts from the training rows."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import CPU, train
from workbench import build

from danube_sweep.config.schema import Config, Pooling
from danube_sweep.config.schema import Head as HeadConfig
from danube_sweep.data.batches import Batch, collate
from danube_sweep.data.encode import encode
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.layout import layout_for
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import swapped
from danube_sweep.head.formulas import ordered_log_probabilities, preference_log_probabilities
from danube_sweep.head.head_layers import Layers
from danube_sweep.head.kinds.bradley_terry_ties import AnswerPooling, BradleyTerryHead, Ties
from danube_sweep.head.kinds.ordinal import OrdinalHead
from danube_sweep.head.kinds.regression import RegressionHead, RegressionLoss
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.head.kinds.token import TokenHead
from danube_sweep.head.pooling import Pooler
from danube_sweep.inference.predict import Form, checked_request, load_run, predictions

Tiny = Callable[..., Config]


def built(config: HeadConfig, classes: int) -> Any:
    """The head of a config over hidden states of width 8."""
    return config.build(hidden_size=8, classes=[str(number) for number in range(classes)], tokenizer=None, lm_head=None)


def labelled(labels: torch.Tensor) -> Encoded:
    """Rows of one token with these labels."""
    count = len(labels)
    tokens = [np.array([5], dtype=np.int32)] * count
    spans, sizes = np.tile(np.array([[[0, 1]]], dtype=np.int32), (count, 1, 1)), np.ones((count, 1), dtype=np.int32)
    ids = [str(row) for row in range(count)]
    return Encoded(ids, tokens, spans, labels.numpy().astype(np.float32), np.ones(count, dtype=np.float32), sizes)


# ------------------------------------------------------------------------------------------------- Bradley-Terry


@pytest.mark.parametrize("ties", Ties)
def test_exchanging_the_answers_exchanges_the_probabilities_to_the_last_bit(ties: Ties) -> None:
    difference_B = torch.cat([torch.randn(1000) * 5, torch.tensor([0.0, 1e-8, 80.0, -200.0])])
    for tie in (-3.0, 0.0, 2.0):
        log_BC = preference_log_probabilities(difference_B, torch.tensor(tie), ties.value)
        turned_BC = preference_log_probabilities(-difference_B, torch.tensor(tie), ties.value)
        assert torch.equal(log_BC, turned_BC[:, [1, 0, 2]])
        torch.testing.assert_close(log_BC.exp().sum(dim=1), torch.ones(1004))


def test_davidson_is_the_formula_of_the_paper() -> None:
    difference_B, nu = torch.tensor([0.7]), 0.4
    first, second = math.exp(0.35), math.exp(-0.35)
    total = first + second + nu * math.sqrt(first * second)
    found = preference_log_probabilities(difference_B, torch.tensor(math.log(nu)), Ties.davidson.value).exp()[0]
    assert found.tolist() == pytest.approx([first / total, second / total, nu / total], rel=1e-6)


def test_rao_and_kupper_is_the_formula_of_the_paper() -> None:
    theta = 1.8
    first, second = math.exp(0.7), 1.0
    raw = torch.tensor(math.log(math.expm1(math.log(theta))))
    found = preference_log_probabilities(torch.tensor([0.7]), raw, Ties.rao_kupper.value).exp()[0]
    wins = [first / (first + theta * second), second / (second + theta * first)]
    assert found.tolist() == pytest.approx([*wins, 1 - sum(wins)], rel=1e-5)


@pytest.mark.parametrize("ties", Ties)
def test_equal_answers_tie_as_often_as_the_training_rows_do(ties: Ties) -> None:
    head = built(BradleyTerryHead(ties=ties), 3)
    head.start(labelled(torch.eye(3)[[0, 0, 1, 1, 1, 0, 2, 2]]))
    log_BC = preference_log_probabilities(torch.zeros(1), head.tie, ties.value)
    assert log_BC.exp()[0].tolist() == pytest.approx([0.375, 0.375, 0.25], rel=1e-5)


def test_without_ties_there_is_nothing_to_learn_of_them() -> None:
    head = built(BradleyTerryHead(), 2)
    head.start(labelled(torch.eye(2)[[0, 1]]))
    assert "tie" not in dict(head.named_parameters())
    assert preference_log_probabilities(torch.zeros(1), None, Ties.davidson.value).exp().tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("pooling", [pooling.value for pooling in AnswerPooling])
def test_a_whole_model_exchanges_the_probabilities_with_the_answers(tiny: Tiny, pooling: str) -> None:
    config = tiny("head=bradley_terry_ties", f"head.pooling={pooling}", "precision=fp32", "lora=none")
    parts = build(config)
    torch.nn.init.normal_(parts.head.layers.linear.weight)
    records = load_parts(config.data).validation[:6]
    layout = layout_for(config.model, config.data, config.head)
    outputs = []
    parts.backbone.body.eval()
    for rows in (records, [swapped(record) for record in records]):
        encoded = encode(rows, parts.prepared.tokenizer, config.data, layout, num_classes=3)
        assert encoded.passes == 2 and len(encoded.tokens) == 12
        batch = collate(encoded, np.arange(6), parts.prepared.pad_id)
        with torch.no_grad():
            outputs.append(parts.head(parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch).exp())
    torch.testing.assert_close(outputs[0], outputs[1][:, [1, 0, 2]], rtol=0, atol=1e-6)
    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("ties", [rule.value for rule in Ties])
@pytest.mark.parametrize("pooling", ["answer", "last_mean"])
def test_a_tie_term_of_features_knows_equal_answers_and_no_order(tiny: Tiny, pooling: str, ties: str) -> None:
    words = ("head=bradley_terry_ties", "head.tie_term=features", f"head.pooling={pooling}", f"head.ties={ties}")
    config = tiny(*words, "precision=fp32", "lora=none")
    parts = build(config)
    parts.head.start(parts.prepared.parts["train"])
    some = load_parts(config.data).validation[:5]
    equal = [replace(record, texts=(record.texts[0], record.texts[1], record.texts[1])) for record in some]
    layout = layout_for(config.model, config.data, config.head)
    encoded = encode([*some, *equal], parts.prepared.tokenizer, config.data, layout, num_classes=3)
    batch = collate(encoded, np.arange(10), parts.prepared.pad_id)
    with torch.no_grad():
        hidden_BTH = parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT)
        hidden_BTH[15:] = hidden_BTH[5:10]  # two passes of the same tokens, which differ by their places in a batch
        assert (parts.head(hidden_BTH, batch).exp()[5:, 2] > 0.9).all()
        torch.nn.init.normal_(parts.head.features.linear.weight, std=0.05)
        torch.nn.init.normal_(parts.head.layers.linear.weight)
        straight, turned = parts.head(hidden_BTH, batch), parts.head(hidden_BTH.roll(10, 0), turned_over(batch, 10))
    assert torch.equal(straight, turned[:, [1, 0, 2]])
    assert float((straight[:5, 0] - straight[:5, 1]).abs().min()) > 1e-4
    assert torch.equal(straight[5:, 0], straight[5:, 1])


def turned_over(batch: Batch, rows: int) -> Batch:
    names = ("input_ids_BT", "mask_BT", "spans_BK2", "sizes_BK")
    return replace(batch, **{name: getattr(batch, name).roll(rows, 0) for name in names})


# ------------------------------------------------------------------------------------------- order and numbers


def test_cumulative_logits_are_differences_of_sigmoids_near_zero_and_far_from_it() -> None:
    thresholds_K = torch.tensor([-1.0, 0.5, 2.0])
    for score in (-30.0, -1.0, 0.0, 3.0, 40.0):
        log_BC = ordered_log_probabilities((thresholds_K - score).double().unsqueeze(0))
        below = torch.cat([torch.zeros(1), torch.sigmoid((thresholds_K - score).double()), torch.ones(1)])
        assert log_BC.isfinite().all()
        torch.testing.assert_close(log_BC.exp()[0], below.double().diff(), rtol=1e-6, atol=1e-13)


def test_thresholds_start_at_the_training_rows_shares_and_keep_their_order() -> None:
    head = built(OrdinalHead(), 4)
    head.start(labelled(torch.eye(4)[[0, 1, 1, 2, 2, 2, 2, 3]]))
    steps_K = torch.cat([head.lowest, torch.nn.functional.softplus(head.steps_K)]).cumsum(dim=0)
    assert ordered_log_probabilities(steps_K.unsqueeze(0)).exp()[0].tolist() == pytest.approx(
        [1 / 8, 2 / 8, 4 / 8, 1 / 8]
    )
    head.start(labelled(torch.eye(4)[[0, 3]]))
    assert all(parameter.isfinite().all() for parameter in head.parameters())


def test_two_ordered_classes_are_a_logistic_regression() -> None:
    head = built(OrdinalHead(), 2)
    head.start(labelled(torch.eye(2)[[0, 1, 1, 1]]))
    assert head.steps_K.numel() == 0 and head.lowest.sigmoid().item() == pytest.approx(0.25)


@pytest.mark.parametrize(("loss", "wanted"), [("mse", 0.25), ("mae", 0.5), ("huber", 0.125)])
def test_a_number_is_trained_standardised_and_answered_as_it_is(loss: str, wanted: float) -> None:
    head = built(RegressionHead(loss=RegressionLoss(loss)), 1)
    head.start(labelled(torch.tensor([[10.0], [30.0]])))
    part = labelled(torch.tensor([[25.0]]))
    batch = collate(part, np.array([0]), 0)
    output_B1 = torch.tensor([[0.0]])  # the mean, 20; 25 is half a deviation away
    assert float(head.loss(output_B1, batch)) == pytest.approx(wanted)
    assert float(head.example_losses(output_B1, batch)) == pytest.approx(25.0)
    answers_NA = head.answers(torch.tensor([[0.5]]))
    assert answers_NA is not None and answers_NA.tolist() == [[25.0]]


def test_a_constant_number_divides_nothing_by_zero() -> None:
    head = built(RegressionHead(), 1)
    head.start(labelled(torch.full((3, 1), 7.0)))
    assert head.answers(torch.zeros(1, 1)).tolist() == [[7.0]]  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------------------------- words


def test_rare_classes_start_rare() -> None:
    head = built(TokenHead(), 2)
    words = [np.array([[number, number, int(number == 9)] for number in range(10)], dtype=np.int32)]
    part = labelled(torch.zeros(1, 1))
    head.start(Encoded(part.ids, part.tokens, part.spans, None, part.weights, part.sizes, words))
    shares_C = head.layers.linear.bias.softmax(dim=0)
    assert shares_C.tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_the_layer_over_words_is_never_quantised(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"tokens": ["Anna", "rides", str(k)], "labels": ["B-NAME", "O", "O"]} for k in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = build(tiny("head=token", "data=tokens", f"data.path={file}", f"precision={precision}"))
    linear = parts.head.layers.linear
    assert type(linear) is torch.nn.Linear and linear.weight.dtype is torch.float32


# ------------------------------------------------------------------------------------------------ layers and packs


def test_a_hidden_layer_and_dropout_are_there_only_when_asked_for() -> None:
    plain, deep = Layers(8, 3, SequenceHead()), Layers(8, 3, SequenceHead(hidden=5, dropout=0.5))
    assert list(plain.state_dict()) == ["linear.weight", "linear.bias"]
    assert {name: tuple(value.shape) for name, value in deep.state_dict().items()} == {
        "inner.weight": (5, 8), "inner.bias": (5,), "linear.weight": (3, 5), "linear.bias": (3,)
    }  # fmt: skip
    state_BH = torch.randn(64, 8)
    assert not torch.equal(deep(state_BH), deep(state_BH))
    deep.eval()
    assert torch.equal(deep(state_BH), deep(state_BH))


def test_the_last_and_the_mean_state_stand_side_by_side(tiny: Tiny) -> None:
    parts = build(tiny("head=sequence", "precision=fp32"))
    batch = parts.batch([0, 1, 2])
    hidden_BTH = torch.randn(*batch.input_ids_BT.shape, 64)
    both, last, mean = (Pooler(pooling, 64) for pooling in (Pooling.last_mean, Pooling.last, Pooling.mean))
    assert both.width == 128
    assert torch.equal(both(hidden_BTH, batch), torch.cat([last(hidden_BTH, batch), mean(hidden_BTH, batch)], dim=1))


def test_predictions_are_the_same_whatever_the_batch(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny("head=bradley_terry_ties", "trainer.max_steps=2"), tmp_path / "run")
    trained = load_run(tmp_path / "run", CPU)
    records = load_parts(trained.config.data).validation
    one, many = (predictions(trained, records, swap=False, batch_rows=rows).answers_NA for rows in (1, 16))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-6)
    both = predictions(trained, records, swap=True, batch_rows=16).answers_NA
    torch.testing.assert_close(both, many, rtol=0, atol=1e-6)
    file = tmp_path / "rows.csv"
    file.write_text('id,prompt,response_a,response_b\n1,"[""?""]","[""far""]","[""near""]"\n')
    request = checked_request(trained, file, tmp_path / "out.csv", Form(swap=True))
    assert not request.swap and "--swap is skipped: this head answers both orders alike" in request.notes
