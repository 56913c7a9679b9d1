"""Chat markup is the tokenizer's own template, whole in every row; markup that a model never saw is refused."""

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from danube_sweep.composer import Composer
from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.schema import Config, Model, Side
from danube_sweep.data.chat_markup import Markup, markup_for, own_start
from danube_sweep.data.encode import encode
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.kinds.generated import generate
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.layout import layout_for
from danube_sweep.data.records import Record
from danube_sweep.data.tokenizer import load_tokenizer
from danube_sweep.data.vocabulary import check_ids, check_vocabulary
from danube_sweep.errors import ModelError
from danube_sweep.head.kinds.causal import CausalHead
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.training.prepare import prepare

COMPOSER = Composer()
"""Composes each option once for all tests."""

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
    "{{- '<|system|>Today Date: ' + date_string + '<|end|>' }}"
    "{%- for m in messages %}{{- '<|' + m.role + '|>\n' + m.content | trim + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"
)
DANUBE = (
    "{% for m in messages %}<|prompt|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|answer|>{% endif %}"
)
MARKS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEXTS = ["What is two plus two?", " spaces, then text ", "</s> and <|im_end|> are text", "x", "Zeilen\n\nund \u00e9"]


def bpe(*, bos: bool = False) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=MARKS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([" ".join(record.texts) for record in generate(30, 0, 0.0)], trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def save(place: Path, template: str | None, *, family: str = "llama", bos: bool = False, **more: Any) -> Path:
    """A folder with a small model's config.json and a tokenizer with this chat template."""
    tokenizer = bpe(bos=bos)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(place)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {} if family == "deberta-v2" else {"num_key_value_heads": 2}
    AutoConfig.for_model(family, **{**sizes, "vocab_size": 320, "pad_token_id": 0, **more}).save_pretrained(place)
    return place


def model_of(place: Path, *overrides: str) -> Model:
    return COMPOSER.trial(["model=auto", f"model.path={place}", "data.max_length=64", *overrides]).model


def rows(model: Model, texts: list[str], head: Any = None, **data: Any) -> Encoded:
    tokenizer, table = load_tokenizer(model), TableData(path="x", **data)
    layout = layout_for(model, table, head or SequenceHead(), markup_for(model, tokenizer))
    return encode([Record(str(n), (text,), None, "") for n, text in enumerate(texts)], tokenizer, table, layout,
                  num_classes=2)  # fmt: skip


def plainly(place: Path, text: str, **template: Any) -> list[int]:
    """What transformers gives for a user's turn. The text goes in by itself, so that its control tokens stay text."""
    tokenizer = AutoTokenizer.from_pretrained(place)
    asked = [{"role": "user", "content": "@@"}]
    whole = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **template)
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in whole.split("@@"))
    middle = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*before, *middle, *after]


# --------------------------------------------------------------------------------------------------- what is rendered


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_what_transformers_own_template_gives(family: str, tmp_path: Path) -> None:
    model = model_of(save(tmp_path, CHATML, family=family))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text, row in zip(TEXTS, rows(model, TEXTS, max_length=400).tokens, strict=True):
        assert row.tolist() == plainly(tmp_path, text)
        asked = [{"role": "user", "content": text}]
        given = {"add_generation_prompt": True, "return_dict": True, "sanitize_control_tokens": True}
        assert row.tolist() == tokenizer.apply_chat_template(asked, **given)["input_ids"]


def pieces(scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind: a mark begins each word, `all` segments of a text or its `first`."""
    letters = [*MARKS, "[INST]", "\u2581", *map(chr, range(32, 127)), "\n", "\u2581W", "\u2581t", "\u2581[", "\n\n"]
    merges = [("\u2581", "W"), ("\u2581", "t"), ("\u2581", "["), ("\n", "\n")]
    vocabulary = {name: place for place, name in enumerate(dict.fromkeys(letters))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True))
    if scheme == "all":
        blanks = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        made.normalizer = normalizers.Sequence(blanks)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.add_special_tokens([AddedToken(mark, normalized=False, rstrip=mark == "<|user|>") for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


MISTRAL = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"
PHI = "{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n"


@pytest.mark.parametrize("scheme", ["all", "first"])
@pytest.mark.parametrize("template", [CHATML, LLAMA_3, MISTRAL, PHI], ids=["chatml", "llama 3", "mistral", "phi"])
def test_a_text_continues_its_markup_as_in_the_whole_sequence(scheme: str, template: str, tmp_path: Path) -> None:
    # By itself a text would begin with a mark that it has not after `user` and a line break.
    tokenizer = pieces(scheme)
    tokenizer.chat_template = template
    save(tmp_path, None)
    tokenizer.save_pretrained(tmp_path)
    model = model_of(tmp_path)
    texts = ["What is two plus two?", "two\n\nlines", "x", "a </s> b"]
    for text, row in zip(texts, rows(model, texts, max_length=200).tokens, strict=True):
        asked = [{"role": "user", "content": text}]
        given = {"add_generation_prompt": True, "return_dict": True, "date_string": "26 Jul 2024"}
        plain = tokenizer.apply_chat_template(asked, **given, sanitize_control_tokens="</s>" in text)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(row) == tokenizer.convert_ids_to_tokens(plain)


@pytest.mark.parametrize("side", Side)
def test_truncation_cuts_the_text_and_never_the_markup(side: Side, tmp_path: Path) -> None:
    model = model_of(save(tmp_path, CHATML))
    tokenizer = load_tokenizer(model)
    (row,) = rows(model, ["many words " * 50], max_length=64, truncation=side).tokens
    markup = markup_for(model, tokenizer)
    begin, end = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (markup.before, markup.after))
    assert len(row) == 64
    assert row[: len(begin)].tolist() == begin and row[-len(end) :].tolist() == end
    marks = [tokenizer.decode([token]) for token in row if token in tokenizer.all_special_ids or token in (3, 4)]
    assert marks == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_a_cue_stands_inside_the_users_turn(tmp_path: Path) -> None:
    model = model_of(save(tmp_path, CHATML))
    (row,) = rows(model, ["x"], CausalHead(), max_length=64).tokens
    decoded = load_tokenizer(model).decode(row)
    assert decoded.endswith("<|im_start|>user\nx\n\nLabel:<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("bos", [True, False])
def test_a_template_with_its_own_first_token_has_one_and_a_date_that_stays(bos: bool, tmp_path: Path) -> None:
    model = model_of(save(tmp_path, LLAMA_3, bos=bos))
    (row,) = rows(model, [" padded "], max_length=64).tokens
    assert row.tolist() == plainly(tmp_path, " padded ", date_string="26 Jul 2024")
    assert [int(token) for token in row].count(1) == 1
    dated = LLAMA_3.replace("{%- if not date_string is defined %}", "{%- if true %}")
    (other,) = rows(model_of(save(tmp_path / "dated", dated)), [" padded "], max_length=64).tokens
    assert other.tolist() == row.tolist()
    assert str(datetime.date.today().year) not in load_tokenizer(model).decode(row)


def test_a_first_token_that_is_asked_for_stands_once(tmp_path: Path) -> None:
    for name, template in (("prints", LLAMA_3), ("does_not", CHATML)):
        model = model_of(save(tmp_path / name, template), "model.start='<s>'")
        (row,) = rows(model, ["x"], max_length=64).tokens
        assert (row[0], row.tolist().count(1)) == (1, 1)


@pytest.mark.parametrize(("bos", "start"), [(True, "<s>"), (False, "")])
def test_without_a_template_a_row_begins_as_the_tokenizer_begins_it(bos: bool, start: str, tmp_path: Path) -> None:
    model = model_of(save(tmp_path, None, bos=bos))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert own_start(tokenizer) == start
    (row,) = rows(model, ["plain text"], max_length=64).tokens
    assert row.tolist() == [*tokenizer("plain text")["input_ids"], tokenizer.eos_token_id]


def test_base_leaves_the_template_out_and_says_so(tmp_path: Path) -> None:
    model = model_of(save(tmp_path, CHATML), "model.variant=base")
    markup = markup_for(model, load_tokenizer(model))
    assert (markup.before, markup.after) == ("", "")
    assert markup.note == "no chat markup: model.variant=base ignores the tokenizer's chat template"
    chat = replace(model, variant="chat")
    assert "chat markup: the tokenizer's own, '<|im_start|>system" in str(markup_for(chat, load_tokenizer(chat)).note)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no users here') }}", r"its chat template cannot be rendered \(no users here\)"),
        ("{{ messages[0].content[99] + }}", "its chat template cannot be rendered"),
        ("<s>fixed", "renders a user's text 0 times, not once"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "renders a user's text 2 times, not once"),
        ("{{ messages[0].content | upper }}", "renders a user's text 0 times, not once"),
    ],
)
def test_a_template_that_does_not_render_a_text_is_refused(template: str, said: str, tmp_path: Path) -> None:
    model = model_of(save(tmp_path, template))
    with pytest.raises(ModelError, match=rf"model.path={re.escape(str(tmp_path))}: .*{said}.*use model.variant=base"):
        markup_for(model, load_tokenizer(model))


# ------------------------------------------------------------------------------------------------------ named options


def danube(place: Path, *overrides: str) -> Model:
    shape = [
        "model.shape.hidden_size=64",
        "model.shape.intermediate_size=96",
        "model.shape.num_hidden_layers=1",
        "model.shape.num_attention_heads=2",
        "model.shape.num_key_value_heads=2",
        "model.shape.vocab_size=320",
    ]
    given = ["model=danube3_500m", "model.variant=chat", f"model.path={place}", "data.max_length=64"]
    return COMPOSER.trial([*given, *shape, *overrides]).model  # fmt: skip


def test_danubes_own_markup_is_plain_text_with_its_template_or_without_any(tmp_path: Path) -> None:
    for name, template in (("with", DANUBE), ("without", None)):
        model = danube(save(tmp_path / name, template))
        assert markup_for(model, load_tokenizer(model)) == Markup("", "<|prompt|>", "</s><|answer|>")


def test_another_models_template_under_a_danube_option_is_refused(tmp_path: Path) -> None:
    model = danube(save(tmp_path, CHATML))
    with pytest.raises(ModelError) as caught:
        markup_for(model, load_tokenizer(model))
    message = str(caught.value)
    assert "the tokenizer's own chat markup is '<|im_start|>system" in message and "\n" not in message
    assert message.endswith(f"use model=auto model.path={tmp_path}")
    kept = markup_for(model, load_tokenizer(model), trained=True)  # a finished run keeps what it was trained with
    assert kept.before == "<|prompt|>"


def test_markup_without_control_tokens_is_refused_on_a_model_of_another_shape(tmp_path: Path) -> None:
    model = danube(save(tmp_path, None), "model.shape.hidden_size=128")
    with pytest.raises(
        ModelError, match=r"no chat template, and <\|prompt\|> of model.chat is not one of its special tokens"
    ):
        markup_for(model, load_tokenizer(model))


def test_an_option_without_a_template_uses_its_markup_where_it_is_control_tokens(tmp_path: Path) -> None:
    save(tmp_path, None)
    smollm, phi = (
        COMPOSER.trial([f"model={name}", "model.variant=chat", f"model.path={tmp_path}", "data.max_length=64"]).model
        for name in ("smollm2_135m", "gemma_7b")
    )
    tokenizer = load_tokenizer(smollm)
    assert markup_for(smollm, tokenizer).before == "<|im_start|>user\n"
    with pytest.raises(ModelError, match=r"<start_of_turn> of model\.chat is not one of its special tokens"):
        markup_for(phi, tokenizer)


def test_random_weights_keep_the_options_markup_as_text() -> None:
    config = COMPOSER.trial(["model=qwen2_5_0_5b", "model.variant=chat", "model.init=random", "data.rows=20", *TINY])
    tokenizer = prepare(config).tokenizer
    assert markup_for(config.model, tokenizer) == Markup(
        "", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    )


# ---------------------------------------------------------------------------------------------- ids and the embedding


def trial(place: Path, *overrides: str) -> Config:
    return COMPOSER.trial(["model=auto", f"model.path={place}", "data.rows=20", "data.max_length=96", *overrides])


def add(place: Path, token: str, *, special: bool = False, **more: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.add_tokens([AddedToken(token, special=special)])
    for name, value in more.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(place)


def test_a_token_beyond_the_embedding_is_refused_before_anything_is_read_of_the_weights(tmp_path: Path) -> None:
    prepare(trial(save(tmp_path, CHATML)))
    add(tmp_path, "newword")
    with pytest.raises(ModelError) as caught:
        prepare(trial(tmp_path))
    message = str(caught.value)
    assert (
        f"model.path={tmp_path}: its tokenizer gives 'newword' the id 320, and the model embeds 320 tokens" in message
    )
    assert "resize_token_embeddings" in message and "\n" not in message
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "vocab_size": 321}))
    prepare(trial(tmp_path))


def test_a_special_token_beyond_the_embedding_is_refused_only_where_it_is_used(tmp_path: Path) -> None:
    add(save(tmp_path / "unused", CHATML), "<|later|>", special=True)
    prepare(trial(tmp_path / "unused"))
    add(save(tmp_path / "pad", CHATML), "[PAD]", special=True, pad_token="[PAD]")
    add(save(tmp_path / "markup", CHATML.replace("system", "<|later|>")), "<|later|>", special=True)
    for name, token in (("pad", "[PAD]"), ("markup", "<|later|>")):
        with pytest.raises(ModelError, match=re.escape(f"gives {token!r} the id 320")):
            prepare(trial(tmp_path / name))


def test_rows_with_an_id_beyond_the_embedding_are_named(tmp_path: Path) -> None:
    model = model_of(save(tmp_path, CHATML))
    found = rows(model, ["a", "b"], max_length=64)
    check_ids(found, 320, "here")
    most = max(int(row.max()) for row in found.tokens)
    with pytest.raises(ModelError, match=f"model.path=here: row 0 has the token id {most}"):
        check_ids(found, most, "here")
    tokenizer = load_tokenizer(model)
    layout = layout_for(model, TableData(path="x"), SequenceHead(), markup_for(model, tokenizer))
    check_vocabulary(tokenizer, layout, 320, "here")
