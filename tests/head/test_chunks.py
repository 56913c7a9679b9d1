"""Logits in chunks: the loss and the gradients of plain transformers, without ever making all logits."""

from itertools import accumulate

import numpy as np
import pytest
import torch
from conftest import compose
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from danube_sweep.data.batches import Batch
from danube_sweep.head.language import LanguageModel
from danube_sweep.model.output_layer import OutputLayer
from danube_sweep.planner.memory import memory_of
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.what_fits import cheapest_change

LENGTHS = (9, 5, 2, 7)
PREDICTED = sum(length - 1 for length in LENGTHS)
LM = ["head=lm", "data=text", "data.path=[x]"]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=1, **shape)).train()


@pytest.fixture(scope="module")
def batch() -> Batch:
    torch.manual_seed(1)
    mask_BT = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    ids_BT = torch.randint(3, 50, mask_BT.shape) * mask_BT
    texts = torch.zeros(4, 1, dtype=torch.long)
    return Batch(
        ids_BT, mask_BT, texts[:, :, None].expand(4, 1, 2), texts, None, torch.ones(4), np.arange(4), sum(LENGTHS)
    )


def gradients(loss: torch.Tensor, model: LlamaForCausalLM) -> list[torch.Tensor]:
    return [*torch.autograd.grad(loss, [*model.parameters()])]


@pytest.mark.parametrize("chunk", [1, 5, PREDICTED, 1000])
def test_loss_and_gradients_are_those_of_plain_transformers(chunk: int, model: LlamaForCausalLM, batch: Batch) -> None:
    labels = batch.input_ids_BT.masked_fill(~batch.mask_BT, -100)
    plain = model(batch.input_ids_BT, attention_mask=batch.mask_BT.long(), labels=labels).loss
    hidden_BTH = model.model(batch.input_ids_BT, attention_mask=batch.mask_BT.long()).last_hidden_state
    head = LanguageModel(OutputLayer(model.lm_head), chunk)
    ours = head.loss(head(hidden_BTH, batch), batch)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(ours, model), gradients(plain, model), rtol=1e-5, atol=1e-7)


def test_losses_of_rows_and_logits_do_not_depend_on_chunks(model: LlamaForCausalLM, batch: Batch) -> None:
    layer = OutputLayer(model.lm_head, 3.0)  # Gemma 2's cap as well
    hidden_BTH = torch.randn(4, max(LENGTHS), 16)
    whole, chunked = LanguageModel(layer), LanguageModel(layer, 4)
    torch.testing.assert_close(
        chunked.example_losses(chunked(hidden_BTH, batch), batch), whole.example_losses(whole(hidden_BTH, batch), batch)
    )
    torch.testing.assert_close(chunked.logits(chunked(hidden_BTH, batch)), whole.logits(whole(hidden_BTH, batch)))


def test_no_more_logits_exist_than_the_plan_counts() -> None:
    words, tokens, width, chunk = 4000, 256, 8, 64
    layer = OutputLayer(torch.nn.Linear(width, words, bias=False).requires_grad_(False))
    states_PH, wanted_P = torch.randn(tokens, width, requires_grad=True), torch.zeros(tokens, dtype=torch.long)
    head = LanguageModel(layer, chunk)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        head._losses(states_PH, wanted_P, chunk, "sum").sum().backward()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    assert live == pytest.approx(12 * chunk * words + 2 * 4 * tokens * width, rel=0.05)
    F.cross_entropy(layer(states_PH), wanted_P).backward()  # the same without chunks takes four times as much


def test_an_8b_with_a_large_vocabulary_fits_with_chunks() -> None:
    """12 bytes a logit: 8 GiB for 4 rows of 2,048 tokens over Gemma's 256,000 words."""
    words = ["model=gemma2_9b", "precision=nf4_dq", "precision.gradient_checkpointing=true", "device=rtx4090", *LM]
    whole, chunked = (
        compose([*words, "trainer.micro_batch=1", "data.max_length=4096", *more]) for more in ([], ["head.chunk=1024"])
    )
    model, device = planned_architecture(whole.model), planned_device(whole.device)
    saved = memory_of(whole, model).workspace - memory_of(chunked, model).workspace
    assert saved == pytest.approx(16 * (4096 - 1024) * 256_000, rel=0.15)
    assert cheapest_change(whole, model, device) == "head.chunk=1024"
    seconds = [seconds_of(one, model, device, tokens_per_row=4096).step for one in (whole, chunked)]
    assert seconds[0] < seconds[1] < 1.2 * seconds[0]  # the output layer's product once more


def test_a_chunk_is_no_part_of_a_trial_and_must_be_one_token_at_least() -> None:
    from danube_sweep.config.stored import sealed
    from danube_sweep.errors import ConfigError

    one, other = compose(LM), compose([*LM, "head.chunk=64"])
    assert sealed(one) == sealed(other)
    with pytest.raises(ConfigError, match=r"head\.chunk must be at least 1, got 0; null for none"):
        compose([*LM, "head.chunk=0"])
