"""What stands beside weights and would change them, or is no weights: refused in one line before anything trains."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from workbench import load, save_base

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import ModelError
from danube_sweep.planner.planned_architecture import planned_architecture

Tiny = Callable[..., Config]

SHAPE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 300,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights and a config."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    save_file({"model.norm.weight": np.ones(64, dtype=np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "me/base"}))
    save_file({"a": np.ones(1, dtype=np.float32)}, folder / "adapter_model.safetensors")


def only_an_adapter(folder: Path) -> None:
    adapter(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()


def quantised(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**SHAPE, "quantization_config": {"quant_method": "gptq"}}))


def index_of(folder: Path, **weight_map: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def missing_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index_of(folder, a="model-1.safetensors", b="model-2.safetensors", c="model-3.safetensors")


def two_models(folder: Path) -> None:
    save_file({"model.norm.weight": np.ones(64, dtype=np.float32)}, folder / "model-1.safetensors")
    index_of(folder, a="model-1.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def another_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def renamed_in_the_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**SHAPE, "transformers_weights": "adapter_model.bin"}))


REFUSED = {
    adapter: "has adapter_config.json and adapter_model.safetensors beside whole weights, and transformers would apply "
    "the adapter to them; if it is merged already, move adapter_config.json and adapter_model.safetensors away, else "
    "give model.path=me/base",
    only_an_adapter: "is an adapter (adapter_config.json and adapter_model.safetensors) of me/base, no model; train "
    "from that model by model.path",
    quantised: "the weights are already quantised (gptq in config.json); give the original model",
    missing_shards: "lacks model-2.safetensors and 1 more, named by model.safetensors.index.json; give a complete copy",
    two_models: "has model.safetensors and shards named by model.safetensors.index.json, and only one can be the model",
    pickled: "are a pickle (pytorch_model.bin), which can run code and is never loaded; save them as safetensors",
    another_name: "has no model.safetensors (weights.safetensors is another format or name)",
    renamed_in_the_config: "transformers_weights=adapter_model.bin in config.json is not supported",
}


@pytest.mark.parametrize(("spoil", "said"), REFUSED.items(), ids=[one.__name__ for one in REFUSED])
def test_each_is_refused_before_training_and_when_loading(
    tiny: Tiny, folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    config = tiny(f"model.path={folder}")
    spoil(folder)
    for meets in (trial_hash, load):
        with pytest.raises(ModelError) as caught:
            meets(config)
        message = str(caught.value)
        assert message.startswith(f"model.path={folder}: the ") and said in message and "\n" not in message


@pytest.mark.parametrize("spoil", [adapter, only_an_adapter, quantised])
def test_a_plan_refuses_them_too(tiny: Tiny, folder: Path, spoil: Callable[[Path], None]) -> None:
    config = tiny(f"model.path={folder}")
    assert planned_architecture(config.model)
    spoil(folder)
    with pytest.raises(ModelError, match=r"adapter|quantised"):
        planned_architecture(config.model)


def test_a_pickle_beside_the_weights_changes_nothing_and_is_told_of(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_base(tiny(), tmp_path)
    config = tiny(f"model.path={tmp_path}")
    before, alone = trial_hash(config), load(config).fingerprint
    (tmp_path / "pytorch_model.bin").write_bytes(b"another model")
    assert (trial_hash(config), load(config).fingerprint) == (before, alone)
    assert f"model.path={tmp_path}: pytorch_model.bin is ignored; the safetensors are loaded" in caplog.text
