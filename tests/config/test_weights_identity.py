"""The identity of weights: every byte of every tensor counts, and nothing about the files that hold them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM
from workbench import save_base

from danube_sweep.config import first_version
from danube_sweep.config.schema import Config
from danube_sweep.config.weights_identity import shown_by, weights_identity
from danube_sweep.errors import ModelError

Tiny = Callable[..., Config]

TENSORS = {
    "model.embed_tokens.weight": np.arange(24, dtype=np.float32).reshape(6, 4),
    "model.norm.weight": np.arange(4, dtype=np.float16),
    "model.layers.0.mlp.up_proj.weight": np.arange(32, dtype=np.float32).reshape(8, 4),
}


def folder_of(folder: Path, tensors: dict[str, np.ndarray] = TENSORS, **described: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4, **described}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_shards_of_any_size_are_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    """transformers writes the shards."""
    save_base(tiny(), tmp_path / "one")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.float32)
    for size in ("100KB", "30KB"):
        loaded.save_pretrained(tmp_path / size, max_shard_size=size)
        assert len(list((tmp_path / size).glob("*.safetensors"))) > 1
        assert weights_identity(tmp_path / size) == weights_identity(tmp_path / "one")


def test_one_bit_of_any_tensor_makes_other_weights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    file, seen = folder / "model.safetensors", {weights_identity(folder)}
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name in TENSORS:
        first, last = header[name]["data_offsets"]
        for place in (first, (first + last) // 2, last - 1):
            changed = bytearray(content)
            changed[8 + length + place] ^= 1
            file.write_bytes(changed)
            seen.add(weights_identity(folder))
    assert len(seen) == 1 + 3 * len(TENSORS)


def test_name_type_and_shape_count_and_metadata_and_order_do_not(tmp_path: Path) -> None:
    one = weights_identity(folder_of(tmp_path / "one"))
    renamed = {name.replace("up", "gate"): value for name, value in TENSORS.items()}
    retyped = {name: value.view(np.int16) if value.dtype == np.float16 else value for name, value in TENSORS.items()}
    turned = {name: value.reshape(4, -1) if value.ndim == 2 else value for name, value in TENSORS.items()}
    others = [weights_identity(folder_of(tmp_path / "other", tensors)) for tensors in (renamed, retyped, turned)]
    assert len({one, *others}) == 4
    save_file(dict(reversed(TENSORS.items())), tmp_path / "one" / "model.safetensors", metadata={"made": "by hand"})
    assert weights_identity(tmp_path / "one") == one
    assert weights_identity(folder_of(tmp_path / "same", transformers_version="9", _name="x", dtype="float16")) == one
    assert weights_identity(folder_of(tmp_path / "theta", rope_theta=1)) != one


def test_a_second_copy_of_a_tied_output_layer_does_not_count(tmp_path: Path) -> None:
    copied = {**TENSORS, "lm_head.weight": TENSORS["model.embed_tokens.weight"].copy()}
    other = {**TENSORS, "lm_head.weight": TENSORS["model.embed_tokens.weight"] + 1}

    def identity(tensors: dict[str, np.ndarray], *, tied: bool) -> str:
        return weights_identity(folder_of(tmp_path, tensors, tie_word_embeddings=tied))

    assert identity(copied, tied=True) == identity(TENSORS, tied=True) != identity(other, tied=True)
    assert identity(copied, tied=False) != identity(TENSORS, tied=False)


def test_files_that_are_not_loaded_do_not_count(tmp_path: Path) -> None:
    one = weights_identity(folder_of(tmp_path))
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "consolidated.safetensors")
    assert weights_identity(tmp_path) == one


def test_what_the_sample_of_version_1_left_out_counts(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": np.zeros((3000, 1000), dtype=np.float32)}
    one, other = folder_of(tmp_path / "one", tensors), folder_of(tmp_path / "other", tensors)
    content = bytearray((other / "model.safetensors").read_bytes())
    content[100_000] ^= 1  # between the first two of 64 samples
    (other / "model.safetensors").write_bytes(content)
    assert first_version.weights_fingerprint(one) == first_version.weights_fingerprint(other)
    assert weights_identity(one) != weights_identity(other)


DAMAGES = {
    "cut in a tensor": lambda content: content[:-1],
    "cut in the header": lambda content: content[:100],
    "too long": lambda content: content + b"x",
    "empty": lambda _content: b"",
    "no header": lambda content: b"{" * len(content),
    "no tensors": lambda _content: (2).to_bytes(8, "little") + b"{}",
    "a list": lambda _content: (2).to_bytes(8, "little") + b"[]",
    "no offsets": lambda _content: (8).to_bytes(8, "little") + b'{"a":{}}',
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder_of(tmp_path) / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"the file model\.safetensors is cut short or no safetensors") as caught:
        weights_identity(tmp_path)
    assert str(caught.value).startswith(f"model.path={tmp_path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{ not json", "[1]", "3", ""])
def test_a_damaged_model_config_is_said(tmp_path: Path, text: str) -> None:
    (folder_of(tmp_path) / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        weights_identity(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    index = {"weight_map": {"model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="in several files"):
        weights_identity(tmp_path)


def test_hashing_tells_its_progress_in_bytes(tmp_path: Path) -> None:
    from contextlib import nullcontext

    seen: list[int] = []
    asked: list[tuple[str, int]] = []

    def bar(title: str, total_bytes: int) -> nullcontext[Callable[[int], object]]:
        asked.append((title, total_bytes))
        return nullcontext(seen.append)

    folder = folder_of(tmp_path)
    with shown_by(bar):
        weights_identity(folder)
    assert asked == [("hashing model.safetensors", (folder / "model.safetensors").stat().st_size)]
    assert sum(seen) == sum(value.nbytes for value in load_file(folder / "model.safetensors").values())
