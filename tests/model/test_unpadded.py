"""Rows laid end to end give what padded rows give, and read nothing of each other.

Axes: B rows, T tokens, N groups of rows, S tokens of a flat row.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import compose, tiny_config
from runs import CPU as CPU_DEVICE
from runs import train as train_run
from test_families import of_family
from torch import nn
from workbench import CPU, build, load, losses, train

from danube_sweep import lora
from danube_sweep.config.facts.architectures import FAMILIES, lies_flat
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Batching, Config, RowLayout
from danube_sweep.data.records import Record
from danube_sweep.errors import ConfigError
from danube_sweep.inference.predict import load_run, predictions
from danube_sweep.model.attention import REPEATED, use_repeated
from danube_sweep.model.backbone import Backbone, load_backbone
from danube_sweep.model.unpadded import flatten, use_flat

Tiny = Callable[..., Config]

DECODERS = [name for name, family in FAMILIES.items() if not family.encoder]
EXACT = {"rtol": 1e-5, "atol": 1e-5}
CLOSE = {"rtol": 2e-2, "atol": 4e-2}
"""What bf16 allows."""


def padded_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Six rows: whole, padded right, padded left, of one token, of two, and of none."""
    ids_BT = torch.randint(3, 250, (6, 24), generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones(6, 24, dtype=torch.bool)
    for row, hidden in enumerate([slice(0), slice(17, None), slice(9), slice(1, None), slice(2, None), slice(None)]):
        mask_BT[row, hidden] = False
    return ids_BT, mask_BT


def with_adapter(config: Config, *, flat: bool) -> Backbone:
    """The backbone with an adapter that changes something from its first step on."""
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=CPU, flat=flat)
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.attach(backbone, config.lora, seed=0).values():
        nn.init.normal_(parameter.data, std=0.05, generator=generator)
    return backbone


def states_and_gradients(backbone: Backbone, groups: int = 1) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ids_BT, mask_BT = padded_rows()
    states_BTH = backbone.hidden(ids_BT, mask_BT, groups=groups)
    kept = states_BTH[mask_BT].float()
    (kept * torch.randn(kept.shape, generator=torch.Generator().manual_seed(2))).mean().backward()
    gradients = {name: one.grad for name, one in backbone.named_parameters() if one.grad is not None}
    return torch.where(mask_BT[..., None], states_BTH.detach().float(), 0), gradients


# ---------------------------------------------------------------------------------------------------------- backbone


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("overrides", [
    ["precision=fp32"],
    ["precision=fp32", "model.shape.sliding_window=7"],
    ["precision=fp32", "precision.gradient_checkpointing=true", "model.shape.sliding_window=7"],
    ["precision=nf4", "precision.compute=fp32"],
    ["precision=bf16"],
])  # fmt: skip
def test_flat_rows_have_the_states_and_gradients_of_padded_ones(family: str, overrides: list[str]) -> None:
    config = tiny_config(*of_family(family, *overrides))
    wanted_BTH, wanted = states_and_gradients(with_adapter(config, flat=False))
    flat = with_adapter(config, flat=True)
    found_BTH, found = states_and_gradients(flat)
    tolerance = CLOSE if config.precision.compute.value == "bf16" else EXACT
    torch.testing.assert_close(found_BTH, wanted_BTH, **tolerance)
    assert found.keys() == wanted.keys() and len(found) > 0
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **tolerance)
    _, mask_BT = padded_rows()
    assert not flat.hidden(*padded_rows())[~mask_BT].any()


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_groups_of_rows_are_flat_rows_of_their_own_with_the_same_states(groups: int) -> None:
    config = tiny_config("precision=fp32", "model.shape.model_type=mistral", "model.shape.sliding_window=7")
    wanted_BTH, wanted = states_and_gradients(with_adapter(config, flat=False))
    found_BTH, found = states_and_gradients(with_adapter(config, flat=True), groups)
    torch.testing.assert_close(found_BTH, wanted_BTH, **EXACT)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **EXACT)


def test_a_row_reads_nothing_of_the_rows_around_it() -> None:
    backbone, (ids_BT, mask_BT) = with_adapter(tiny_config("precision=fp32"), flat=True), padded_rows()
    before_BTH = backbone.hidden(ids_BT, mask_BT)
    ids_BT[0] = ids_BT[0].flip(0)
    after_BTH = backbone.hidden(ids_BT, mask_BT)
    assert torch.equal(before_BTH[1:], after_BTH[1:]) and not torch.equal(before_BTH[0], after_BTH[0])


def test_repeated_keys_stay_repeated_in_flat_rows() -> None:
    config = tiny_config("precision=fp32")
    wanted_BTH, wanted = states_and_gradients(with_adapter(config, flat=False))
    backbone = with_adapter(config, flat=False)
    use_repeated(backbone.body)
    use_flat(backbone.body)
    backbone.flat = True
    assert backbone.body.config._attn_implementation == f"flat_{REPEATED}"
    found_BTH, found = states_and_gradients(backbone)
    torch.testing.assert_close(found_BTH, wanted_BTH, **EXACT)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **EXACT)


def test_what_is_laid_flat_comes_back_with_zeros_at_padding() -> None:
    _, mask_BT = padded_rows()
    values = torch.randn(6, 24, 3)
    for groups in (1, 2, 6):
        flat = flatten(mask_BT, groups)
        laid = flat.lay(values)
        assert laid.shape[:2] == flat.positions_NS.shape == (groups, max(map(sum, flat.lengths)))
        assert torch.equal(flat.unlay(laid), values * mask_BT[..., None])
        starts = [sum(row[:place]) for row in flat.lengths for place in range(len(row))]
        numbers = [number for number, row in enumerate(flat.lengths) for _ in row]
        assert not flat.positions_NS[numbers, starts].any()


# ------------------------------------------------------------------------------------------------------------- trials


def loss_and_gradients(config: Config) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    parts = build(config)
    loss = parts.loss(parts.batch([0, 1, 2, 3, 4]))
    loss.backward()
    named = {**parts.adapter, **dict(parts.head.named_parameters())}
    return loss.detach(), {name: one.grad for name, one in named.items() if one.grad is not None}


@pytest.mark.parametrize("head", [
    ["head=preference"],
    ["head=preference", "head.pooling=attention"],
    ["head=sequence", "head.pooling=last_mean"],
    ["head=bradley_terry_ties"],
    ["head=causal", "head.words=[A,B,tie]"],
])  # fmt: skip
def test_every_head_reads_the_same_of_flat_rows(head: list[str]) -> None:
    found, wanted = (
        loss_and_gradients(tiny_config("precision=fp32", *head, f"data.layout={layout}"))
        for layout in ("flat", "padded")
    )
    torch.testing.assert_close(found, wanted, **EXACT)
    assert found[1].keys() == wanted[1].keys()


@pytest.mark.parametrize(("precision", "tolerance"), [
    (["precision=fp32"], 1e-5),
    (["precision=fp32", "precision.gradient_checkpointing=true"], 1e-5),
    (["precision=nf4", "precision.compute=fp32"], 1e-5),
    (["precision=nf4", "precision.compute=bf16"], 1e-2),
])  # fmt: skip
def test_a_flat_trial_follows_the_losses_of_the_padded_one(
    tiny: Tiny, tmp_path: Path, precision: list[str], tolerance: float
) -> None:
    config = [*precision, "trainer.max_steps=14", "trainer.log_every=1", "lora.last_k=1"]
    trials = [train(tiny(*config, f"data.layout={name}"), tmp_path / name) for name in ("padded", "flat")]
    for part in ("train", "validation"):
        wanted, found = (losses(trial, part) for trial in trials)
        assert found == pytest.approx(wanted, abs=tolerance) and len(found) >= 5


def test_predictions_of_a_flat_run_are_those_of_a_padded_one(tiny: Tiny, tmp_path: Path) -> None:
    records = [Record(str(k), ("how far? " * k, "far " * (9 - k), "near " * k**2), None, "") for k in range(9)]
    answers = {}
    for name in ("padded", "flat"):
        config = tiny("precision=fp32", "trainer.max_steps=3", f"data.layout={name}")
        train_run(config, tmp_path / name)
        trained = load_run(tmp_path / name, CPU_DEVICE)
        assert trained.backbone.flat is (name == "flat")
        answers[name] = predictions(trained, records, swap=True, batch_rows=4).answers_NA
    torch.testing.assert_close(answers["flat"], answers["padded"], **EXACT)


# ------------------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(("layout", "family", "accelerator", "padding", "flat"), [
    ("auto", "llama", "cpu", 1.3, True),
    ("auto", "gemma2", "cpu", 1.3, True),
    ("auto", "llama", "cpu", 1.05, False),
    ("auto", "llama", "cuda", 9.0, False),
    ("auto", "deberta-v2", "cpu", 9.0, False),
    ("auto", "unheard_of", "cpu", 9.0, False),
    ("padded", "llama", "cpu", 9.0, False),
    ("flat", "llama", "cuda", 1.0, True),
])  # fmt: skip
def test_rows_lie_flat_on_a_cpu_where_that_saves_a_tenth(
    layout: str, family: str, accelerator: str, padding: float, flat: bool
) -> None:
    assert lies_flat(RowLayout(layout), family, accelerator, padding) is flat


def test_packed_is_the_earlier_name_of_shuffled_rows_laid_flat() -> None:
    data = tiny_config("data.batching=packed").data
    assert (data.batching, data.layout) == (Batching.shuffled, RowLayout.flat)
    with pytest.raises(ConfigError, match=r"^data.batching=packed is an older name for .* got data.layout=padded"):
        tiny_config("data.batching=packed", "data.layout=padded")


def test_the_layout_is_no_part_of_the_trial() -> None:
    hashes = {trial_hash(tiny_config(f"data.layout={layout.value}")) for layout in RowLayout}
    assert hashes == {trial_hash(tiny_config("data.batching=packed"))}


# ----------------------------------------------------------------------------------------------------------- refusals


def test_an_encoder_cannot_be_packed() -> None:
    with pytest.raises(ConfigError, match=r"^data.layout=flat: deberta-v2 .* use data.layout=auto$"):
        compose(["model=deberta_v3_base", "model.init=random", "data=generated", "data.batching=packed"])


def test_a_folder_whose_own_config_is_an_encoders_cannot_be_packed(tiny: Tiny, tmp_path: Path) -> None:
    encoder = tiny(*of_family("deberta-v2"))
    load(encoder).body.save_pretrained(tmp_path)
    config = tiny(f"model.path={tmp_path}", "data.batching=packed")
    with pytest.raises(ConfigError, match=r"^data.layout=flat: deberta-v2 .* use data.layout=auto$"):
        load(config)
