"""Every family trains, quantised or not, with adapters on what `lora.targets` means in it."""

from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from peft import PeftModel
from rich.console import Console
from transformers import AutoModel

from danube_sweep import lora
from danube_sweep.config.facts.architectures import FAMILIES, TARGET_SETS
from danube_sweep.model.backbone import load_backbone
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.run import run_trial

KV = {"deberta-v2": 2}
"""Families without grouped keys and values."""


def of_family(family: str, *overrides: str) -> list[str]:
    kv = [f"model.shape.num_key_value_heads={KV[family]}"] if family in KV else []
    return [f"model.shape.model_type={family}", *kv, "data.rows=40", *overrides]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_family_trains_what_it_is_asked_to(family: str, precision: str, tmp_path: Path) -> None:
    config = tiny_config(*of_family(family, f"precision={precision}", "trainer.max_steps=2", "lora.last_k=1"))
    result = run_trial(config, tmp_path / "run", Terminal(Console(quiet=True)))
    assert result["state"] == "finished" and result["parameters"]["trainable"] > 0
    assert result["predicted"]["seconds_per_step"] > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_a_set_of_targets_means_its_own_modules_in_every_family(family: str, targets: str) -> None:
    config = tiny_config(*of_family(family, f"lora.targets={targets}"))
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    trained = lora.attach(backbone, config.lora, seed=0)
    kinds = {"attention": FAMILIES[family].attention, "mlp": FAMILIES[family].mlp}
    kinds |= {"all_linear": FAMILIES[family].linears, "qv": FAMILIES[family].query_value}
    layers = backbone.body.config.num_hidden_layers
    assert len(trained) == 2 * layers * len(kinds[targets])
    for name in kinds[targets]:
        assert sum(f".{name}.lora_A" in key for key in trained) >= layers


def test_the_adapter_of_an_encoder_loads_in_plain_peft(tmp_path: Path) -> None:
    config = tiny_config(*of_family("deberta-v2", "trainer.max_steps=2", "lora.targets=mlp", "lora.last_k=1"))
    run_trial(config, tmp_path / "run", Terminal(Console(quiet=True)))
    backbone = load_backbone(config.model, config.precision, with_lm_head=False, device=torch.device("cpu"))
    plain = AutoModel.from_config(backbone.body.config)
    plain.load_state_dict(backbone.body.state_dict())
    loaded = PeftModel.from_pretrained(plain, str(RunFolder(tmp_path / "run").path / "adapter"))
    adapted = [name for name, _ in loaded.named_parameters() if "lora_B" in name]
    assert len(adapted) == 2 and all("layer.1." in name for name in adapted)
    assert any(float(weight.abs().sum()) > 0 for name, weight in loaded.named_parameters() if "lora_B" in name)
