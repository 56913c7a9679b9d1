"""model=auto reads shape and variant from a model's own files; published models are options, and say which."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from hub_server import COMMIT, Hub, serving
from omegaconf import OmegaConf
from safetensors.numpy import save_file
from transformers import AutoConfig

from danube_sweep.composer import Composer, compose, register
from danube_sweep.config.facts.architectures import FAMILIES, architecture_of
from danube_sweep.config.facts.checkpoint_files import shape_of
from danube_sweep.config.facts.named_models import named_option
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Model, Shape
from danube_sweep.config.stored import load_config, plain_config
from danube_sweep.errors import ConfigError, ModelError
from danube_sweep.planner.planned_architecture import planned_architecture

COMPOSER = Composer()
"""Composes model=auto once for all tests."""

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300,
}  # fmt: skip
UNEQUAL = {"deberta-v2": {}, "phi3": {"pad_token_id": 0}}
"""What a family needs besides; the others get grouped keys."""


def folder_of(family: str, place: Path, **more: Any) -> Path:
    """A folder with the config.json that transformers writes for a small model of the family."""
    grouped = (
        UNEQUAL.get(family, {}) if family == "deberta-v2" else {"num_key_value_heads": 2, **UNEQUAL.get(family, {})}
    )
    AutoConfig.for_model(family, **SIZES, **grouped, **more).save_pretrained(place)
    return place


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def auto(folder: Path, *overrides: str) -> Model:
    return COMPOSER.trial(["model=auto", f"model.path={folder}", "data.max_length=32", *overrides]).model


def agrees(shape: Shape, config: Any) -> bool:
    """Whether a shape is that of a transformers config."""
    same = all(getattr(shape, name) == getattr(config, name) for name in ("model_type", *SIZES))
    if FAMILIES[shape.model_type].encoder:
        return same
    same &= shape.head_dim == getattr(config, "head_dim", None) or shape.head_dim == 64 // 4
    same &= shape.rope_theta == config.rope_parameters["rope_theta"]
    window = (
        config.sliding_window
        if getattr(config, "use_sliding_window", True) and hasattr(config, "sliding_window")
        else None
    )
    names = ("num_key_value_heads", "max_position_embeddings", "tie_word_embeddings")
    return same and shape.sliding_window == window and all(getattr(shape, n) == getattr(config, n) for n in names)


# ------------------------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shape_is_what_transformers_reads_from_the_folder(family: str, tmp_path: Path) -> None:
    theta = {} if family == "deberta-v2" else {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    model = auto(folder_of(family, tmp_path, tie_word_embeddings=True, **theta))
    assert agrees(model.shape, AutoConfig.from_pretrained(tmp_path))
    assert replace(planned_architecture(model), row_limit=None) == architecture_of(model.shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_key_that_a_config_leaves_out_is_what_transformers_takes_for_it(family: str, tmp_path: Path) -> None:
    folder_of(family, tmp_path)
    needed = {"model_type", *SIZES, *(["num_key_value_heads"] if family != "mistral" else [])}
    kept = {key: value for key, value in described(tmp_path).items() if key in needed}
    heads = {"num_attention_heads": 8} if family == "mistral" else {}
    (tmp_path / "config.json").write_text(json.dumps({**kept, **heads, **UNEQUAL.get(family, {})}))
    found, wanted = shape_of(described(tmp_path)), AutoConfig.from_pretrained(tmp_path)
    assert found.num_key_value_heads == getattr(wanted, "num_key_value_heads", 4)
    assert found.max_position_embeddings == wanted.max_position_embeddings
    assert found.head_dim == (getattr(wanted, "head_dim", None) or 64 // wanted.num_attention_heads)
    assert found.tie_word_embeddings == wanted.tie_word_embeddings or FAMILIES[family].encoder
    if not FAMILIES[family].encoder:
        assert found.rope_theta == wanted.rope_parameters["rope_theta"]
        used = getattr(wanted, "use_sliding_window", True)
        assert found.sliding_window == (getattr(wanted, "sliding_window", None) if used else None)


def test_both_spellings_of_the_rotary_base_are_read() -> None:
    whole = {"model_type": "llama", **SIZES}
    assert shape_of({**whole, "rope_theta": 7e4}).rope_theta == 7e4
    assert shape_of({**whole, "rope_parameters": {"rope_type": "default", "rope_theta": 7e4}}).rope_theta == 7e4
    assert shape_of({**whole, "rope_theta": None, "rope_parameters": {"rope_theta": 7e4}}).rope_theta == 7e4
    assert shape_of({**whole, "use_sliding_window": False, "sliding_window": 32}).sliding_window is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "model_type gpt2 cannot be trained by model=auto; there are llama, mistral, qwen2"),
        ({"vocab_size": None}, "no usable config.json (it lacks vocab_size)"),
        ({"num_attention_heads": "four"}, "no usable config.json (invalid literal"),
        (None, "no usable config.json (there is none)"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_line(change: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    if change is None:
        (tmp_path / "config.json").unlink()
    else:
        (tmp_path / "config.json").write_text(json.dumps({**described(tmp_path), **change}))
    with pytest.raises(ModelError) as caught:
        auto(tmp_path)
    assert str(caught.value).startswith(f"model.path={tmp_path}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_chat_template_makes_the_variant_chat_unless_base_is_asked(place: str, tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    assert auto(tmp_path).variant == "base"
    (tmp_path / place).write_text(json.dumps({"chat_template": "{{ messages }}"}))
    chat, base = auto(tmp_path), auto(tmp_path, "model.variant=base")
    assert (chat.variant, base.variant, auto(tmp_path, "model.variant=chat")) == ("chat", "base", chat)
    assert auto(tmp_path, "model.init=random").variant == "base"


def test_base_and_chat_are_two_trials_and_auto_is_the_one_that_it_means(tmp_path: Path) -> None:
    folder_of("llama", tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"model.norm.weight": np.ones(4, dtype=np.float32)}, tmp_path / "model.safetensors")
    given = ["model=auto", f"model.path={tmp_path}", "data.max_length=32"]
    hashes = [
        trial_hash(COMPOSER.trial([*given, *more])) for more in ([], ["model.variant=chat"], ["model.variant=base"])
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_stored_trial_is_read_back_as_it_was(tmp_path: Path) -> None:
    folder = folder_of("qwen2", tmp_path / "model")
    config = COMPOSER.trial(["model=auto", f"model.path={folder}", "data.max_length=32"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain_config(config)))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("family", "size", "rate"),
    [("llama", 64, 2e-4), ("llama", 2048, 1e-4), ("deberta-v2", 64, 2e-5), ("deberta-v2", 1024, 1e-5)],
)
def test_the_learning_rate_suits_the_size(family: str, size: int, rate: float, tmp_path: Path) -> None:
    folder_of(family, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**described(tmp_path), "hidden_size": size}))
    given = ["model=auto", f"model.path={tmp_path}", "data.max_length=32"]
    assert COMPOSER.trial(given).optimizer.lr == rate
    assert COMPOSER.trial([*given, "model.lr=3e-3"]).optimizer.lr == 3e-3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.variant=chat", "model.variant=chat: the tokenizer of .* has no chat template; use model.variant=base"),
        ("model.shape.hidden_size=128", "model.shape.hidden_size: model=auto reads the shape from config.json"),
        ("model.chat.user=Q", "model.chat: model=auto takes the tokenizer's own chat template"),
        ("model.path=null", "model.path is required: model=auto reads a folder or a hub name"),
    ],
)
def test_what_auto_reads_itself_cannot_be_given(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        auto(folder_of("llama", tmp_path), override)


def test_an_adapter_or_quantised_weights_in_the_place_of_a_model_say_so(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "me/base"}))
    with pytest.raises(ModelError, match=r"the folder is an adapter .* of me/base, no model"):
        auto(tmp_path)
    folder_of("llama", tmp_path / "whole")
    whole = {**described(tmp_path / "whole"), "quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "whole" / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ModelError, match=r"the weights are already quantised .gptq"):
        auto(tmp_path / "whole")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such folder; give a hub name or a folder that exists"):
        auto(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------------------------- hub names


def cached(place: Path, name: str, files: dict[str, str]) -> None:
    """A model of the hub as its client keeps it after a download."""
    repository, commit = place / f"models--{name.replace('/', '--')}", "a" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for file, text in files.items():
        (snapshot / file).write_text(text)


def test_a_hub_name_in_the_cache_is_read_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    files = {"config.json": (folder_of("llama", tmp_path / "f") / "config.json").read_text()}
    cached(tmp_path / "hub", "me/plain", {**files, "tokenizer_config.json": "{}"})
    cached(tmp_path / "hub", "me/tuned", {**files, "tokenizer_config.json": json.dumps({"chat_template": "{{ x }}"})})
    cached(tmp_path / "hub", "me/half", files)
    plain, tuned = auto(Path("me/plain")), auto(Path("me/tuned"))
    assert (plain.variant, tuned.variant, plain.shape.hidden_size) == ("base", "chat", 64)
    with pytest.raises(
        ModelError, match=r"me/half: its config\.json is not in the cache and the hub cannot be reached"
    ):
        auto(Path("me/half"))  # nobody knows whether it has a chat template


def test_of_a_hub_name_only_the_small_files_are_fetched_and_offline_agrees(tmp_path: Path) -> None:
    hub = Hub()
    files = {"config.json": (folder_of("llama", tmp_path / "f") / "config.json").read_text(), "README.md": ""}
    files |= {"chat_template.jinja": "{{ messages }}", "tokenizer_config.json": "{}", "model.safetensors": "never read"}
    hub.published = {name: text.encode() for name, text in files.items()}
    script = (
        "from danube_sweep.composer import compose; import sys; assert 'torch' not in sys.modules\n"
        "model = compose(['model=auto', 'model.path=me/published', 'data.max_length=32']).model\n"
        "print(model.variant, model.shape.hidden_size, model.commit)"
    )
    with serving(hub):
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        said = [
            subprocess.run([sys.executable, "-c", script], env={**environment, **more}, capture_output=True, text=True)
            for more in ({}, {"HF_HUB_OFFLINE": "1"})
        ]
    assert [done.stdout.strip() for done in said] == [f"chat 64 {COMMIT}"] * 2, said[0].stderr
    kept = {file.name for file in (tmp_path / "hub" / "models--me--published" / "snapshots" / COMMIT).iterdir()}
    assert kept == {"config.json", "chat_template.jinja", "tokenizer_config.json"}


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "or write model=qwen2_5_0_5b model.variant=chat"),
        ("google/gemma-2-9b-it", "or write model=gemma2_9b"),
        ("me/unknown", "or take a named option"),
    ],
)
def test_a_hub_name_that_nobody_knows_offline_says_the_way_out(name: str, way_out: str) -> None:
    with pytest.raises(ModelError) as caught:
        auto(Path(name))
    message = str(caught.value)
    assert f"download it once (hf download {name}), give a folder, {way_out}" in message


# ------------------------------------------------------------------------------------------------------ named models


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("h2oai/h2o-danube3-500m-chat", "is an option here; write model=danube3_500m model.variant=chat"),
        ("qwen/qwen2.5-1.5b", "is an option here; write model=qwen2_5_1_5b"),
        ("meta-llama/Llama-3.2-3B-Instruct", "is an option here; write model=llama3_2_3b model.variant=chat"),
        (
            "me/some.model",
            "no such option; for a folder or a hub model, write model=auto model.path=me/some.model",
        ),
        ("/some/folder", "write model=auto model.path=/some/folder"),
        ("./folder", "write model=auto model.path=./folder"),
    ],
)
def test_a_hub_name_or_a_folder_in_the_place_of_an_option_says_what_to_write(value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([f"model={value}"])
    assert str(caught.value).startswith(f"model={value}") and str(caught.value).endswith(said)


def test_every_published_model_is_found_by_its_hub_name() -> None:
    register()
    for file in (ROOT / "conf" / "model").glob("*.yaml"):
        option = yaml.safe_load(file.read_text())
        for variant in option.get("variants", ["base"]) if "path" in option else []:
            path = OmegaConf.create({"path": option["path"], "variant": variant}).path
            usual = variant == option.get("variant", "base")
            assert named_option(path) == f"model={file.stem}" + ("" if usual else f" model.variant={variant}")
