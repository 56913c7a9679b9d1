"""Rows may be as long as the kind of positions allows: relative and rotary ones do not end, learned ones do."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config
from rich.console import Console
from transformers import AutoModel, DebertaV2Config, DebertaV2Model, LlamaConfig
from workbench import load, rows_of, save_base

from danube_sweep.composer import compose
from danube_sweep.config.facts.positions import row_limit
from danube_sweep.data.batches import collate
from danube_sweep.errors import ConfigError
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.run import run_trial

V3 = {"relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
      "norm_rel_ebd": "layer_norm", "position_biased_input": False, "max_relative_positions": -1}  # fmt: skip
"""What the published DeBERTa-v3 models say of their positions; there are 512."""
SIZES = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def encoder(folder: Path, **positions: object) -> list[str]:
    """A tiny DeBERTa of 512 positions in a folder, with a tokenizer; the overrides that read it."""
    save_base(tiny_config(), folder)
    torch.manual_seed(0)
    described = DebertaV2Config(num_attention_heads=2, **{**SIZES, **V3, **positions})  # type: ignore[arg-type]
    DebertaV2Model(described).save_pretrained(folder)
    return [f"model.path={folder}", "head=sequence", "precision=fp32"]


def run(folder: Path, *overrides: str) -> tuple[dict[str, object], str]:
    """The result of one step over rows of 1 to 1,500 words, and what the terminal showed."""
    with (folder / "rows.csv").open("w", newline="") as stream:
        rows = [[" ".join(["ab"] * (1500 if n == 0 else n)), "yes" if n % 2 else "no"] for n in range(12)]
        csv.writer(stream).writerows([["text", "label"], *rows])
    data = ["data=table", f"data.path={folder / 'rows.csv'}", "trainer.max_steps=1", "trainer.micro_batch=1"]
    shown = io.StringIO()
    config = tiny_config(*overrides, *data, "trainer.effective_batch=1")
    return run_trial(config, folder / "run", Terminal(Console(file=shown, width=200), plain=True)), shown.getvalue()


def test_rows_beyond_an_encoders_512_positions_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    config = tiny_config(*encoder(tmp_path, num_hidden_layers=1), "data.max_length=1500")
    rows = [np.random.default_rng(n).integers(3, 500, length).tolist() for n, length in enumerate((1024, 1500, 40))]
    batch = collate(rows_of(rows), np.arange(3), 0)
    backbone, plain = load(config), AutoModel.from_pretrained(tmp_path).eval()
    with evaluating(backbone):
        found_BTH = backbone.hidden(batch.input_ids_BT, batch.mask_BT)
        for row, tokens in enumerate(rows):
            alone_TH = plain(input_ids=torch.tensor([tokens])).last_hidden_state[0]
            torch.testing.assert_close(found_BTH[row, : len(tokens)], alone_TH, rtol=0, atol=2e-5)


def test_an_encoder_of_relative_positions_trains_on_rows_longer_than_its_pretrainings(tmp_path: Path) -> None:
    result, shown = run(tmp_path, *encoder(tmp_path), "data.max_length=1200")
    assert result["state"] == "finished" and "rows have up to 1,200 tokens" in shown
    assert "at most 512" in shown and "only" not in shown


def test_a_default_length_is_brought_down_to_the_learned_positions_with_a_note(tmp_path: Path) -> None:
    options = encoder(tmp_path, position_biased_input=True)
    config = compose([*options, "data=table", "data.path=rows.csv"])
    assert (config.data.max_length, planned_architecture(config.model).row_limit) == (512, 512)
    with pytest.raises(ConfigError, match=r"^data.max_length must be at most 512, the model's last position, got 600$"):
        compose([*options, "data=table", "data.path=rows.csv", "data.max_length=600"])
    result, shown = run(tmp_path, *options, "data.max_length=1024")
    assert result["state"] == "finished" and "data.max_length=512: the model has no positions beyond this" in shown


@pytest.mark.parametrize("model", ["deberta_v3_base", "deberta_v3_large"])
def test_deberta_v3_composes_at_the_default_length(model: str) -> None:
    assert compose([f"model={model}", "head=sequence"]).data.max_length == 1024


def test_the_limit_follows_from_the_kind_of_positions() -> None:
    def limit(**described: object) -> int | None:
        return row_limit({"max_position_embeddings": 512, **described})

    assert limit(model_type="deberta-v2", position_biased_input=False) is None
    assert limit(model_type="deberta-v2") == 512  # transformers' own default is biased
    assert limit(**LlamaConfig(max_position_embeddings=512).to_dict()) is None
    assert limit(model_type="bert") == 512
    assert limit(model_type="olmo", rope_theta=1e4) is None
