"""The backbone: true shapes, weights that depend on nothing but their seed, and errors in one line."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, compose
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM
from workbench import CPU, load, save_base

import danube_sweep
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.data.tokenizer import build_tokenizer, load_tokenizer
from danube_sweep.errors import ModelError
from danube_sweep.model.backbone import Backbone, architecture, load_backbone

Tiny = Callable[..., Config]

COUNTS = {
    "danube2_1_8b": (1_831_201_280, 1_749_288_960),
    "danube3_500m": (513_590_784, 464_443_392),
    "danube3_4b": (3_961_839_360, 3_838_970_880),
    "danube3_1_4b": (3_961_839_360, 3_838_970_880),
}
"""Option -> parameters of the causal LM and of the classifier with 3 classes."""


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in backbone.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(caught.value)
    assert message.count("\n") == 0 and len(message) < 500
    return message


# --------------------------------------------------------------------------------------------------------- shapes


def test_a_tied_output_layer_counts_once(tiny: Tiny) -> None:
    for tied in (True, False):
        config = tiny("precision=fp32", f"model.shape.tie_word_embeddings={str(tied).lower()}").model
        backbone = load_backbone(config, tiny("precision=fp32").precision, with_lm_head=True, device=CPU)
        with torch.device("meta"):
            wanted = AutoModelForCausalLM.from_config(architecture(config))
        assert [name for name, _ in backbone.named_parameters()] == [name for name, _ in wanted.named_parameters()]
        assert sum(one.numel() for one in weights(backbone).values()) == wanted.num_parameters()


@pytest.mark.parametrize("name", COUNTS)
def test_every_danube_has_the_published_shape_and_number_of_parameters(name: str) -> None:
    model = compose([f"model={name}", "model.init=random"]).model
    config, shape = architecture(model), model.shape
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    causal, classifier = COUNTS[name]
    body = sum(parameter.numel() for parameter in whole.model.parameters())
    assert sum(parameter.numel() for parameter in whole.parameters()) == causal
    assert body + 3 * shape.hidden_size == classifier
    assert causal - whole.lm_head.weight.numel() + 3 * shape.hidden_size == classifier
    for field in ("model_type", "head_dim", "num_key_value_heads", "max_position_embeddings", "vocab_size"):
        assert getattr(config, field) == getattr(shape, field)
    assert config.rope_parameters["rope_theta"] == shape.rope_theta
    assert (config.rms_norm_eps, config.tie_word_embeddings, config.pad_token_id) == (1e-5, False, 0)
    assert getattr(config, "sliding_window", None) is None


def test_every_danube_but_the_tiny_one_is_counted_here() -> None:
    options = {file.stem for file in (ROOT / "conf" / "model").glob("danube*.yaml")}
    assert options - {"danube_tiny", "danube_1_8b"} == set(COUNTS)  # whose window is four thousand tokens


# --------------------------------------------------------------------------------------------------------- weights


def test_random_weights_do_not_depend_on_the_head(tiny: Tiny) -> None:
    without, with_lm_head = weights(load(tiny("precision=fp32"))), weights(load(tiny("precision=fp32", "head=causal")))
    assert with_lm_head.pop("lm_head.weight").shape == (512, 64)
    assert same(without, with_lm_head)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_random_weights_in_half_precision_are_the_rounded_ones(tiny: Tiny, precision: str) -> None:
    model = tiny("precision=fp32").model
    half = compose([f"precision={precision}", "device.types=[fp32,bf16,fp16]"]).precision
    exact, rounded = weights(load(tiny("precision=fp32"))), load_backbone(model, half, with_lm_head=False, device=CPU)
    assert same({name: value.to(getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[precision]))
                 for name, value in exact.items()}, weights(rounded))  # fmt: skip


@pytest.mark.parametrize(("precision", "error"), [("nf4", 0.12), ("nf4_dq", 0.12), ("fp4", 0.16), ("int8", 0.02)])
def test_quantised_random_weights_are_those_of_the_same_seed(tiny: Tiny, precision: str, error: float) -> None:
    import bitsandbytes as bnb

    exact, stored = load(tiny("precision=fp32")).body, load(tiny(f"precision={precision}")).body
    for name, layer in stored.named_modules():
        wanted = exact.get_submodule(name)
        if isinstance(layer, bnb.nn.Linear4bit):
            found = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        elif isinstance(layer, bnb.nn.Linear8bitLt):
            found = layer.weight.CB.float() * layer.weight.SCB[:, None] / 127
        else:
            continue
        assert (found - wanted.weight).norm() < error * wanted.weight.norm()
    assert torch.equal(stored.embed_tokens.weight, exact.embed_tokens.weight.to(stored.embed_tokens.weight.dtype))


def test_init_seed_changes_the_weights_and_the_callers_random_state_does_not(tiny: Tiny) -> None:
    torch.manual_seed(1)
    first = weights(load(tiny("precision=fp32")))
    drawn = torch.rand(3)
    torch.manual_seed(2)
    again, other = weights(load(tiny("precision=fp32"))), weights(load(tiny("precision=fp32", "model.init_seed=1")))
    assert same(first, again)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)


def test_loaded_weights_are_the_saved_ones_frozen_and_in_train_mode(tiny: Tiny, tmp_path: Path) -> None:
    saved = save_base(tiny("model.init_seed=5"), tmp_path)
    backbone = load(tiny(f"model.path={tmp_path}", "precision=fp32", "head=causal"))
    assert same({f"model.{name}": value for name, value in saved.model.named_parameters()}
                | {"lm_head.weight": saved.lm_head.weight}, weights(backbone))  # fmt: skip
    assert all(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for _, parameter in backbone.named_parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4", "nf4_dq", "int8"])
def test_a_saved_folder_gives_the_weights_that_were_drawn(tiny: Tiny, tmp_path: Path, precision: str) -> None:
    save_base(tiny(), tmp_path)
    saved = load(tiny(f"model.path={tmp_path}", f"precision={precision}"))
    assert same(weights(saved), weights(load(tiny(f"precision={precision}"))))


# ----------------------------------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_tells_seeds_and_shapes_apart_and_nothing_else(tiny: Tiny) -> None:
    first = load(tiny("precision=fp32")).fingerprint
    same = [load(tiny(*options)).fingerprint for options in (["precision=nf4"], ["head=causal"], ["lora=none"])]
    assert set(same) == {first}
    others = [load(tiny(option)).fingerprint for option in ("model.init_seed=1", "model.shape.rope_theta=5000")]
    assert len({first, *others}) == 3


def test_the_fingerprint_of_a_folder_is_that_of_its_weights(tiny: Tiny, tmp_path: Path) -> None:
    save_base(tiny(), tmp_path / "one")
    save_base(tiny("model.init_seed=1"), tmp_path / "other")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    one, other, copy = (load(tiny(f"model.path={tmp_path / name}")).fingerprint for name in ("one", "other", "copy"))
    assert one == copy != other
    hashes = [trial_hash(tiny(f"model.path={tmp_path / name}")) for name in ("one", "other", "copy")]
    assert hashes[0] == hashes[2] != hashes[1]


# ---------------------------------------------------------------------------------------------------------- errors


def break_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def drop_one_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def widen_one_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"] = torch.zeros(130, 64)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [break_config, cut_config, break_weights, cut_weights, pickle_weights, drop_one_weight, widen_one_weight],
)
def test_a_folder_that_cannot_be_used_is_one_line(tiny: Tiny, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_base(tiny(), tmp_path)
    config = tiny(f"model.path={tmp_path}", "precision=fp32")
    damage(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(config)
    assert one_line(caught).startswith(f"model.path={tmp_path}: the ")


def test_a_folder_without_an_output_layer_serves_no_head_that_reads_one(tiny: Tiny, tmp_path: Path) -> None:
    save_base(tiny(), tmp_path).model.save_pretrained(tmp_path)
    load(tiny(f"model.path={tmp_path}", "precision=fp32"))
    with pytest.raises(ModelError, match=r"lm_head\.weight") as caught:
        load(tiny(f"model.path={tmp_path}", "precision=fp32", "head=causal"))
    one_line(caught)


@pytest.mark.parametrize("load_one", [load, lambda config: architecture(config.model), lambda config: load_tokenizer(
    config.model)])  # fmt: skip
def test_a_hub_name_without_a_hub_is_one_line(tiny: Tiny, load_one: Callable[[Config], object]) -> None:
    config = tiny("model.path=h2oai/no-such-danube")
    with pytest.raises(ModelError) as caught:
        load_one(config)
    message = one_line(caught)
    assert message.startswith("model.path=h2oai/no-such-danube: the hub cannot be reached")
    assert "model.init=random" in message


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(tiny(f"model.path={tmp_path / 'nowhere'}"))


# ------------------------------------------------------------------------------------------- foreign code, padding


def test_code_that_comes_with_a_model_never_runs(tiny: Tiny, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    classes = {name: f"own.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    described = {"model_type": "own", "auto_map": {**classes, "AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    for load_one in (load, lambda config: architecture(config.model), lambda config: load_tokenizer(config.model)):
        with pytest.raises(ModelError) as caught:
            load_one(tiny(f"model.path={tmp_path}"))
        one_line(caught)
    assert not ran.exists()


def test_trust_remote_code_is_off_wherever_a_model_is_loaded() -> None:
    trusting = []
    for file in Path(danube_sweep.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if (
                not named
                or node.func.attr != "from_pretrained"
                or not ast.unparse(node.func).startswith(("Auto", "lo"))
            ):
                continue
            stated = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if stated.get("trust_remote_code") != "False":
                trusting.append(f"{file.name}:{node.lineno}")
    assert not trusting


def test_model_and_tokenizer_agree_on_the_padding(tiny: Tiny) -> None:
    config = tiny()
    tokenizer = build_tokenizer(config.model, ["some text", "and more of it"])
    body = load(config).body
    assert tokenizer.pad_token_id == body.config.pad_token_id == body.embed_tokens.padding_idx == 0
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (body.config.bos_token_id, body.config.eos_token_id)
    assert len(tokenizer) <= body.config.vocab_size


def test_hidden_states_are_those_of_plain_transformers(tiny: Tiny, tmp_path: Path) -> None:
    save_base(tiny(), tmp_path)
    backbone = load(tiny(f"model.path={tmp_path}", "precision=fp32"))
    ids_BT, mask_BT = torch.tensor([[1, 5, 6, 7]]), torch.ones(1, 4, dtype=torch.bool)
    wanted = AutoModel.from_pretrained(tmp_path, dtype=torch.float32)(input_ids=ids_BT).last_hidden_state
    assert torch.equal(backbone.hidden(ids_BT, mask_BT), wanted)
