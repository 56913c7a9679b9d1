"""The identity of a tokenizer: all that changes an id or the chat markup counts, and nothing else does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from danube_sweep.config.tokenizer_identity import tokenizer_identity
from danube_sweep.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small tokenizer with a chat template, as transformers saves it."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5}
    whole = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")], unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    tokenizer.chat_template = "{{ messages[0].content }}</s>"
    tokenizer.save_pretrained(tmp_path / "one")
    return tmp_path / "one"


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))


COUNTS: dict[str, Callable[[Path], object]] = {
    "another end token": lambda at: changed(at / "tokenizer_config.json", lambda one: one.update(eos_token="<s>")),
    "no start token": lambda at: changed(at / "tokenizer_config.json", lambda one: one.pop("bos_token")),
    "another class": lambda at: changed(at / "tokenizer_config.json", lambda one: one.update(tokenizer_class="X")),
    "a setting": lambda at: changed(at / "tokenizer_config.json", lambda one: one.update(add_prefix_space=True)),
    "another template": lambda at: (at / "chat_template.jinja").write_text("{{ messages }}"),
    "no template": lambda at: (at / "chat_template.jinja").unlink(),
    "one more template": lambda at: (
        (at / "additional_chat_templates").mkdir(),
        (at / "additional_chat_templates" / "tools.jinja").write_text("x"),
    ),
    "an added token": lambda at: (at / "added_tokens.json").write_text('{"<new>": 6}'),
    "a merge": lambda at: changed(at / "tokenizer.json", lambda one: one["model"].update(merges=[])),
    "an id": lambda at: changed(at / "tokenizer.json", lambda one: one["model"]["vocab"].update(a=4, b=3)),
    "a special token": lambda at: changed(
        at / "tokenizer.json", lambda one: one["added_tokens"][2].update(special=False)
    ),
    "a normaliser": lambda at: changed(at / "tokenizer.json", lambda one: one.update(normalizer={"type": "NFC"})),
    "a legacy map": lambda at: (at / "special_tokens_map.json").write_text('{"eos_token": "<s>"}'),
}


@pytest.mark.parametrize("change", COUNTS.values(), ids=COUNTS)
def test_what_changes_an_id_or_the_markup_counts(folder: Path, change: Callable[[Path], object]) -> None:
    before = tokenizer_identity(folder)
    change(folder)
    assert tokenizer_identity(folder) != before


def template_into_the_config(at: Path) -> None:
    file = at / "chat_template.jinja"
    changed(at / "tokenizer_config.json", lambda one: one.update(chat_template=file.read_text()))
    file.unlink()


def tokens_into_the_config(at: Path) -> None:
    added = json.loads((at / "tokenizer.json").read_text())["added_tokens"]
    decoder = {str(one.pop("id")): one for one in added}
    changed(at / "tokenizer_config.json", lambda one: one.update(added_tokens_decoder=decoder))


ALIKE: dict[str, Callable[[Path], object]] = {
    "spaces": lambda at: (at / "tokenizer.json").write_text(
        json.dumps(json.loads((at / "tokenizer.json").read_text()), indent=7, ensure_ascii=False)
    ),
    "padding and truncation of the last call": lambda at: changed(
        at / "tokenizer.json",
        lambda one: one.update(
            padding={"strategy": "BatchLongest", "pad_id": 0},
            truncation={"max_length": 9, "stride": 0},
        ),
    ),
    "merges as texts": lambda at: changed(at / "tokenizer.json", lambda one: one["model"].update(merges=["a b"])),
    "lengths and sides": lambda at: changed(
        at / "tokenizer_config.json",
        lambda one: one.update(model_max_length=7, padding_side="left", name_or_path="/x", _commit_hash="1"),
    ),
    "the template in the config": template_into_the_config,
    "the added tokens in the config": tokens_into_the_config,
    "an equal legacy map": lambda at: (at / "special_tokens_map.json").write_text('{"eos_token": "</s>"}'),
    "vocabulary files that tokenizer.json replaces": lambda at: (at / "merges.txt").write_text("a b\n"),
    "other files": lambda at: (at / "generation_config.json").write_text("{}"),
}


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE)
def test_what_changes_neither_does_not(folder: Path, change: Callable[[Path], object]) -> None:
    before = tokenizer_identity(folder)
    change(folder)
    assert tokenizer_identity(folder) == before


def test_a_tokenizer_that_transformers_loads_and_saves_elsewhere_is_the_same(folder: Path, tmp_path: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    loaded(["a b ab", "a"], padding=True, truncation=True, max_length=2)
    loaded.save_pretrained(tmp_path / "other")
    assert tokenizer_identity(tmp_path / "other") == tokenizer_identity(folder)


def test_without_a_tokenizer_json_the_vocabulary_counts(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"one")
    before = tokenizer_identity(folder)
    (folder / "tokenizer.model").write_bytes(b"two")
    assert tokenizer_identity(folder) != before


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_file_is_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    if (name, text) == ("tokenizer_config.json", "{}"):
        tokenizer_identity(folder)
        return
    with pytest.raises(ModelError, match=f"the file {name} is") as caught:
        tokenizer_identity(folder)
    assert "\n" not in str(caught.value)
