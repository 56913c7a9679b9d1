"""Heads: shapes, losses by hand, and a row's result that no neighbour and no padding changes."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from workbench import CAUSAL, build, load, rows_of

from danube_sweep.config.schema import Compute, Config, Precision, Storage
from danube_sweep.data.batches import Batch, collate
from danube_sweep.errors import ConfigError
from danube_sweep.head.base_head import Head
from danube_sweep.head.build_head import build_head
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.head.language import LanguageModel
from danube_sweep.training.prepare import prepare

Tiny = Callable[..., Config]

CLASSIFIERS = {
    "last": ["head=sequence"],
    "mean": ["head=sequence", "head.pooling=mean"],
    "attention": ["head=sequence", "head.pooling=attention"],
    "pair": ["head=preference"],
    "pair-last": ["head=preference", "head.pooling=last"],
    "words": CAUSAL,
}

TOKENS = [[5, 9, 11, 40, 41, 6, 8], [7, 3, 12], [30, 31, 32, 33, 34], [9, 9, 2, 1]]


@pytest.fixture(params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest, tiny: Tiny) -> Config:
    return tiny(*CLASSIFIERS[request.param], "precision=fp32", "lora.targets=qv")


def batch_of(tokens: list[list[int]], rows: list[int] | None = None, side: str = "right") -> Batch:
    chosen = list(range(len(tokens))) if rows is None else rows
    return collate(rows_of(tokens), np.array(chosen), pad_id=0, side=side)


def soft(batch: Batch) -> Batch:
    return replace(batch, labels_BC=torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.3, 0.3, 0.4]]))


def lm_head_of(config: Config) -> tuple[Head, torch.nn.Module]:
    backbone = load(config)
    assert backbone.lm_head is not None
    head = build_head(LMHead(), hidden_size=64, classes=[], tokenizer=None, lm_head=backbone.output_layer, seed=0)
    return head, backbone.lm_head


# ------------------------------------------------------------------------------------------------ shapes and losses


def test_a_classifier_gives_a_logit_per_class_and_a_loss_per_row(classifier: Config) -> None:
    parts = build(classifier)
    batch = batch_of(TOKENS)
    logits_BC = parts.head(parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch)
    assert logits_BC.shape == (4, 3) and logits_BC.dtype is torch.float32
    row_losses_B = parts.head.example_losses(logits_BC, batch)
    assert row_losses_B.shape == (4,)
    torch.testing.assert_close(parts.head.loss(logits_BC, batch), row_losses_B.mean())
    wanted_B = torch.stack([-logits_BC[row].log_softmax(0)[row % 3] for row in range(4)])
    torch.testing.assert_close(row_losses_B, wanted_B)


def test_soft_labels_are_weighed_by_their_shares(classifier: Config) -> None:
    head, batch, logits_BC = build(classifier).head, soft(batch_of(TOKENS)), torch.randn(4, 3)
    assert batch.labels_BC is not None
    wanted_B = -(batch.labels_BC * logits_BC.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(head.example_losses(logits_BC, batch), wanted_B)
    torch.testing.assert_close(head.loss(logits_BC, batch), wanted_B.mean())


def test_label_smoothing_spreads_its_share_evenly_in_training_only(tiny: Tiny) -> None:
    head = build(tiny("head=sequence", "head.label_smoothing=0.3")).head
    logits_BC = torch.tensor([[2.0, 0.0, -1.0]])
    batch = batch_of(TOKENS, rows=[0])
    total = math.log(math.e**2 + 1 + math.e**-1)
    negative = [total - 2, total, total + 1]
    by_hand = 0.8 * negative[0] + 0.1 * negative[1] + 0.1 * negative[2]
    assert float(head.loss(logits_BC, batch)) == pytest.approx(by_hand, rel=1e-6)
    assert float(head.example_losses(logits_BC, batch)) == pytest.approx(negative[0], rel=1e-6)


def test_the_start_depends_on_the_seed_alone(tiny: Tiny) -> None:
    options = ["head=sequence", "head.pooling=attention"]
    torch.manual_seed(1)
    first = build(tiny(*options)).head.state_dict()
    torch.manual_seed(2)
    again = build(tiny(*options, "precision=fp32", "lora=none", "data.order_seed=3")).head.state_dict()
    other = build(tiny(*options, "seed=1")).head.state_dict()
    assert first.keys() == {"pooler.query_H", "layers.linear.weight", "layers.linear.bias"}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.linear.weight"], other["layers.linear.weight"])
    assert not first["layers.linear.bias"].any() and 0.01 < float(first["layers.linear.weight"].std()) < 0.03


# ------------------------------------------------------------------------------------------- padding and neighbours


def test_a_row_alone_equals_the_row_in_a_batch_padded_on_either_side(classifier: Config) -> None:
    parts = build(classifier)
    parts.backbone.body.eval()

    def logits_BC(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return parts.head(parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch)

    right, left = (logits_BC(batch_of(TOKENS, side=side)) for side in ("right", "left"))
    for row in (1, 2, 3):
        alone = logits_BC(batch_of(TOKENS, rows=[row]))[0]
        torch.testing.assert_close(alone, right[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone, left[row], rtol=0, atol=1e-5)


def test_a_trailing_unknown_token_is_a_token_although_its_id_is_the_paddings(tiny: Tiny) -> None:
    head = build(tiny("head=sequence", "precision=fp32")).head
    hidden_BTH = torch.randn(2, 4, 64)
    with_unknown = head(hidden_BTH, batch_of([[5, 6, 7, 0], [5, 6, 7]]))
    torch.testing.assert_close(with_unknown[0], head.layers.linear(hidden_BTH[0, 3]))
    torch.testing.assert_close(with_unknown[1], head.layers.linear(hidden_BTH[1, 2]))


def test_pooling_is_what_its_name_says(tiny: Tiny) -> None:
    hidden_BTH, batch = torch.randn(4, 7, 64), batch_of(TOKENS)
    lengths = [len(row) for row in TOKENS]
    for pooling in ("last", "mean", "attention"):
        head = build(tiny("head=sequence", f"head.pooling={pooling}")).head
        pooled_BH = head.pooler(hidden_BTH, batch)
        for row, length in enumerate(lengths):
            states_TH = hidden_BTH[row, :length]
            if pooling == "attention":
                wanted_H = (states_TH @ head.pooler.query_H).softmax(0) @ states_TH
            else:
                wanted_H = states_TH[-1] if pooling == "last" else states_TH.mean(0)
            torch.testing.assert_close(pooled_BH[row], wanted_H)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_pair_head_reads_each_answers_own_tokens_and_length(tiny: Tiny, side: str) -> None:
    head = build(tiny("head=preference")).head
    batch, hidden_BTH = batch_of(TOKENS, side=side), torch.randn(4, 7, 64)
    pooled_BH = head.pooler(hidden_BTH, batch)
    for row, tokens in enumerate(TOKENS):
        start = 7 - len(tokens) if side == "left" else 0
        states_TH, half = hidden_BTH[row, start : start + len(tokens)], len(tokens) // 2
        difference_H = states_TH[:half].mean(0) - states_TH[half:].mean(0)
        longer_1 = torch.tensor([math.log((1 + half) / (1 + len(tokens) - half)) * 64**0.5])
        wanted = torch.cat([difference_H, difference_H.abs(), longer_1, longer_1.abs()])
        torch.testing.assert_close(pooled_BH[row], wanted)


def test_an_empty_answer_is_zero_and_no_nan(tiny: Tiny) -> None:
    head = build(tiny("head=preference")).head
    batch = batch_of([[5, 6, 7, 8]])
    empty = replace(batch, spans_BK2=torch.tensor([[[1, 1], [1, 3]]]))
    hidden_BTH = torch.randn(1, 4, 64)
    torch.testing.assert_close(head.pooler(hidden_BTH, empty)[0, :64], -hidden_BTH[0, 1:3].mean(0))


# ---------------------------------------------------------------------------------------------------- language model


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_language_models_losses_are_those_of_a_plain_loop(tiny: Tiny, side: str) -> None:
    config = tiny("precision=fp32", *CAUSAL)
    head, lm_head = lm_head_of(config)
    backbone, batch = load(config), batch_of(TOKENS, side=side)
    hidden_BTH = backbone.hidden(batch.input_ids_BT, batch.mask_BT)
    output = head(hidden_BTH, batch)
    every, wanted_B = [], []
    for row, tokens in enumerate(TOKENS):
        start = 7 - len(tokens) if side == "left" else 0
        losses = [
            F.cross_entropy(lm_head(hidden_BTH[row, start + place]), torch.tensor(tokens[place + 1]))
            for place in range(len(tokens) - 1)
        ]
        every += losses
        wanted_B.append(torch.stack(losses).mean())
    assert output.shape == (len(every), 512)
    torch.testing.assert_close(head.example_losses(output, batch), torch.stack(wanted_B))
    torch.testing.assert_close(head.loss(output, batch), torch.stack(every).mean())


def test_a_language_models_row_alone_loses_as_much_as_in_a_padded_batch(tiny: Tiny) -> None:
    config = tiny("precision=fp32", *CAUSAL)
    head, _ = lm_head_of(config)
    backbone = load(config)

    def example_losses(batch: Batch) -> torch.Tensor:
        return head.example_losses(head(backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch), batch)

    for side in ("right", "left"):
        together_B = example_losses(batch_of(TOKENS, side=side))
        for row in range(4):
            alone = example_losses(batch_of(TOKENS, rows=[row]))[0]
            torch.testing.assert_close(alone, together_B[row], rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------------------------- label words


def test_label_words_are_read_off_the_models_own_logits(tiny: Tiny) -> None:
    parts = build(tiny(*CAUSAL, "precision=fp32"))
    ids = [parts.prepared.tokenizer(" " + word)["input_ids"] for word in ("A", "B", "tie")]
    hidden_BTH, batch = torch.randn(4, 7, 64), batch_of(TOKENS)
    output_BC = parts.head(hidden_BTH, batch)
    tokenizer = parts.prepared.tokenizer
    for column, tokens in enumerate(ids):
        token = next(token for token in tokens if tokenizer.decode([token]).strip())
        for row, text in enumerate(TOKENS):
            logit = parts.backbone.lm_head(hidden_BTH[row, len(text) - 1])[token]
            torch.testing.assert_close(output_BC[row, column], logit)
    assert not list(parts.head.parameters()) and not parts.head.state_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["answer", "answer", "tie"], "must differ|same token"),
        (["zqa", "zqb", "tie"], "'zqa' and 'zqb' begin with the same token; give words that do not"),
        (["A", " ", "tie"], "has no token of its own"),
    ],
)
def test_label_words_that_cannot_be_told_apart_are_refused(tiny: Tiny, words: list[str], message: str) -> None:
    config = tiny(*CAUSAL)
    prepared = prepare(config)
    config.head.words = words
    with pytest.raises(ConfigError, match=message):
        build(config, prepared)


def test_label_words_must_be_as_many_as_the_classes(tiny: Tiny) -> None:
    config = tiny(*CAUSAL)
    prepared = replace(prepare(config), classes=["one", "two"])
    with pytest.raises(ConfigError, match=r"head\.words needs 2 words \(one, two\), got 3"):
        build(config, prepared)


# ---------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("storage", [Storage.nf4, Storage.int8, Storage.bf16])
def test_heads_are_fp32_over_every_storage_type(classifier: Config, storage: Storage) -> None:
    config = replace(classifier, precision=Precision(storage, Compute.bf16))
    parts = build(config)
    batch = batch_of(TOKENS)
    hidden_BTH = parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT)
    logits_BC = parts.head(hidden_BTH, batch)
    assert hidden_BTH.dtype is torch.bfloat16 and logits_BC.dtype is torch.float32
    assert all(parameter.dtype is torch.float32 for parameter in parts.head.parameters())
    assert all(type(layer).__name__ != "Linear4bit" for layer in parts.head.modules())
    parts.head.loss(logits_BC, batch).backward()
    assert all(parameter.grad is not None for parameter in parts.head.parameters())


def test_only_the_heads_that_read_it_ask_for_the_output_layer(tiny: Tiny) -> None:
    asking = {name: tiny(*options).head.reads_lm_head for name, options in CLASSIFIERS.items()}
    assert asking == {**dict.fromkeys(CLASSIFIERS, False), "words": True}
    assert LMHead().reads_lm_head and isinstance(lm_head_of(tiny(*CAUSAL))[0], LanguageModel)
