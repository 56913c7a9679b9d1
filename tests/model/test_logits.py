"""The logits of words are transformers' own in every family, caps included, at the sizes that trained models reach."""

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from peft import LoraConfig, get_peft_model
from runs import CPU, train
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM
from workbench import CAUSAL, Parts, build, save_base

from danube_sweep.config import first_version
from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.data.batches import Batch
from danube_sweep.errors import ConfigError
from danube_sweep.inference.export.export_run import Options, write_export
from danube_sweep.inference.predict import load_run

DECODERS = [name for name, family in FAMILIES.items() if not family.encoder]
LM = ["head=lm", "data=text"]
ROWS = "".join(f'{{"text": "row {n} with {"a few " * (n % 5)}words"}}\n' for n in range(12))


def large_base(family: str, folder: Path) -> list[str]:
    """A causal LM whose logits and attention scores are as large as trained ones'; the overrides that train it."""
    shape = [f"model.shape.model_type={family}", "precision=fp32"]
    drawn = save_base(tiny_config(*shape, *CAUSAL), folder)
    offset = 1 if FAMILIES[family].unit_offset else 0
    with torch.no_grad():
        drawn.model.norm.weight.fill_(120 - offset)
        for name, weight in drawn.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "qkv_proj.weight")):
                weight.mul_(60)
    drawn.save_pretrained(folder)
    rows = folder / "rows.jsonl"
    rows.write_text(ROWS)
    return [*shape, f"model.path={folder}"]


def text(folder: Path) -> list[str]:
    return [*LM, f"data.path=[{folder / 'rows.jsonl'}]", "data.max_length=32"]


def plain_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """transformers' logits, row by row without padding, end to end."""
    rows = [ids_T[mask_T] for ids_T, mask_T in zip(batch.input_ids_BT, batch.mask_BT, strict=True)]
    return torch.cat([model(input_ids=ids_T[None]).logits[0] for ids_T in rows])


def ours(parts: Parts, batch: Batch) -> torch.Tensor:
    return parts.head(parts.backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch)


@pytest.mark.parametrize("family", DECODERS)
def test_words_have_transformers_own_logits(family: str, tmp_path: Path) -> None:
    options = large_base(family, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    cap = 30 if family == "gemma2" else None
    for batching in ("bucketed", "packed"):
        parts = build(tiny_config(*options, *text(tmp_path), f"data.batching={batching}"))
        batch = parts.batch([0, 1, 2])
        lengths = batch.mask_BT.sum(1).tolist()
        with torch.no_grad():
            wanted_VW = plain_logits(plain, batch)
            found_PW = ours(parts, batch)
        followed = torch.cat([torch.arange(length) < length - 1 for length in lengths])
        assert wanted_VW.abs().max() > (25 if cap else 40)
        torch.testing.assert_close(found_PW, wanted_VW[followed], rtol=1e-5, atol=2e-4)
    parts = build(tiny_config(*options, *CAUSAL))
    batch = parts.batch([0, 1, 2, 3])
    last_B = batch.mask_BT.sum(1).cumsum(0) - 1
    with torch.no_grad():
        wanted_BC = plain_logits(plain, batch)[last_B][:, parts.head.get_buffer("word_ids_C")]
        torch.testing.assert_close(ours(parts, batch), wanted_BC, rtol=1e-5, atol=2e-4)


def test_a_family_that_scales_its_logits_is_refused_for_heads_of_words(tmp_path: Path) -> None:
    save_base(tiny_config(), tmp_path)
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    GraniteForCausalLM(GraniteConfig(**sizes, num_attention_heads=2, logits_scaling=8.0)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"scaled logits of granite \(logits_scaling .*; use head=sequence$"):
        build(tiny_config(f"model.path={tmp_path}", "precision=fp32", *CAUSAL))
    assert build(tiny_config(f"model.path={tmp_path}", "precision=fp32", "head=sequence")).backbone.lm_head is None


def test_the_loss_of_capped_logits_has_transformers_own_gradients(tmp_path: Path) -> None:
    options = large_base("gemma2", tmp_path)
    parts = build(tiny_config(*options, *text(tmp_path), "lora.rank=4", "lora.alpha=32", "lora.targets=qv"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs = get_peft_model(plain, LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"]))
    named = {name.partition("model.layers.")[2].replace(".default", ""): one for name, one in theirs.named_parameters()}
    batch = parts.batch([0, 1, 2])
    mine = {name.partition("layers.")[2].replace(".default", ""): one for name, one in parts.adapter.items()}
    with torch.no_grad():
        for number, (name, weight) in enumerate(mine.items()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.02)
            named[name].copy_(weight)
    parts.loss(batch).backward()
    labels_BT = batch.input_ids_BT.masked_fill(~batch.mask_BT, -100)
    theirs(input_ids=batch.input_ids_BT, attention_mask=batch.mask_BT.long(), labels=labels_BT).loss.backward()
    assert mine
    for name, weight in mine.items():
        torch.testing.assert_close(weight.grad, named[name].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arithmetic", [1, 2])
def test_a_run_is_exported_as_it_was_trained_before_and_after_logits_were_capped(
    tmp_path: Path, arithmetic: int
) -> None:
    base = tmp_path / "base"
    options = large_base("gemma2", base)
    run = tmp_path / "run"
    train(tiny_config(*options, *CAUSAL, "trainer.max_steps=2", "data.max_length=48", "data.rows=40"), run)
    manifest = run / "adapter" / "checkpoint.json"
    stated = json.loads(manifest.read_text())
    assert stated.pop("arithmetic") == 2 and stated.pop("seal")
    old = {"backbone": first_version.weights_fingerprint(base)}
    manifest.write_text(json.dumps(stated | (old if arithmetic == 1 else {"arithmetic": 2})))
    folder = tmp_path / "whole"
    folder.mkdir()
    found = write_export(run, folder, load_run(run, CPU, by_peft=True), Options("an export", merge=True))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.final_logit_softcapping == (None if arithmetic == 1 else 30)
    ids_BT, mask_BT = found.expected.inputs["input_ids"], found.expected.inputs["attention_mask"]
    with torch.no_grad():
        logits_BTW = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    last_B = mask_BT.sum(1) - 1 if bool(mask_BT[:, 0].all()) else torch.full((len(ids_BT),), ids_BT.shape[1] - 1)
    words = found.reading.word_ids  # type: ignore[union-attr]
    wanted_BC = logits_BTW[torch.arange(len(ids_BT)), last_B][:, words]
    torch.testing.assert_close(F.softmax(found.expected.logits, -1), F.softmax(wanted_BC, -1), rtol=0, atol=1e-4)
