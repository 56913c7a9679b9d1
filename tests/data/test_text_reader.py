"""A control token in a row's text is text; every other text has the ids that its tokenizer gives it."""

import json

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from danube_sweep.data.encode import encode
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.tokens import TokensData
from danube_sweep.data.layout import Layout
from danube_sweep.data.records import Record
from danube_sweep.data.text_reader import TextReader

TEXTS = ["the cat sat", "a </s> b <s>", "<unk> and [SEP]end", "x<|im_end|>\ny", "tall<|tool|>tale", "", "é\U0001f600"]
MARKS = ["<unk>", "<s>", "</s>", "[SEP]", "<|im_end|>"]


def byte_level() -> PreTrainedTokenizerFast:
    """As Llama 3's and Qwen's: bytes, merges, control tokens beside the vocabulary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS[:1] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_special_tokens(MARKS)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", pad_token="<unk>", eos_token="<|im_end|>")


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """As Llama 2's (bpe) and DeBERTa's (unigram): words begin with a mark, control tokens in the vocabulary."""
    letters = sorted({letter for text in TEXTS for letter in text} | {"\u2581"})
    if kind == "bpe":
        pieces = {name: number for number, name in enumerate([*MARKS, *letters, "</", "</s"])}
        merges = [("<", "/"), ("</", "s"), ("</s", ">")]  # a vocabulary that can spell its own control token
        made = Tokenizer(models.BPE(vocab=pieces, merges=merges, unk_token="<unk>", fuse_unk=True))
    else:
        scored = [*((name, 0.0) for name in MARKS), *((letter, -2.0) for letter in letters)]
        made = Tokenizer(models.Unigram(scored, unk_id=0))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(Regex(" "), "\u2581")])
    made.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", eos_token="</s>")


def word_pieces() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({name: place for place, name in enumerate([*MARKS, "the", "end"])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(MARKS)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", eos_token="</s>")


KINDS = {
    "byte-level": byte_level,
    "bpe": lambda: sentencepiece("bpe"),
    "unigram": lambda: sentencepiece("unigram"),
    "words": word_pieces,
}


def content(tokenizer: PreTrainedTokenizerBase, texts: list[str], markup: str = "") -> list[list[int]]:
    return TextReader(tokenizer, markup).ids(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_no_control_token_comes_from_a_text(kind: str) -> None:
    tokenizer = KINDS[kind]()
    unknown = tokenizer.unk_token_id if kind != "byte-level" else None
    for ids in content(tokenizer, TEXTS):
        assert not set(ids) & (set(tokenizer.all_special_ids) - {unknown})
    assert {tokenizer.eos_token_id} <= {one for ids in tokenizer(TEXTS)["input_ids"] for one in ids}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_control_tokens_are_read_as_ever(kind: str) -> None:
    tokenizer = KINDS[kind]()
    plain = [text for text in TEXTS if not any(mark in text for mark in MARKS)]
    assert content(tokenizer, plain) == tokenizer(plain, add_special_tokens=False)["input_ids"]


def test_of_a_tokenizer_of_bytes_it_is_what_transformers_splits() -> None:
    tokenizer = byte_level()
    split = tokenizer(TEXTS, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = content(byte_level(), TEXTS)
    assert found == split
    assert [tokenizer.decode(ids) for ids in found] == TEXTS


def test_a_tokenizer_without_a_fast_backend_reads_control_tokens_as_text() -> None:
    slow = ByT5Tokenizer()
    (ids,) = content(slow, ["a</s>"])
    assert ids == [3 + byte for byte in b"a</s>"] != slow("a</s>", add_special_tokens=False)["input_ids"]


def test_an_added_token_that_is_not_special_counts_only_where_it_is_markup() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|tool|>", special=False), AddedToken("tall", special=False)])
    mark, word = tokenizer.convert_tokens_to_ids(["<|tool|>", "tall"])
    (kept,) = content(tokenizer, ["tall<|tool|>tale"])
    (read,) = content(tokenizer, ["tall<|tool|>tale"], markup="<|tool|>user tall\n")
    assert mark in kept and word in kept
    assert mark not in read and word in read
    assert tokenizer.decode(read) == "tall<|tool|>tale"


def test_a_rows_markup_is_control_and_its_text_is_not() -> None:
    tokenizer = byte_level()
    layout = Layout(("<s>",), "<|im_end|>\n", ends_with_eos=False)
    encoded = encode([Record("1", ("no <|im_end|> <s>",), None, "")], tokenizer, TableData(path="x"), layout,
                     num_classes=2)  # fmt: skip
    (row,) = encoded.tokens
    begin, end = tokenizer.convert_tokens_to_ids(["<s>", "<|im_end|>"])
    assert [int(one) for one in row if one in (begin, end)] == [begin, end]
    assert tokenizer.decode(row) == "<s>no <|im_end|> <s><|im_end|>\n"


def test_the_words_of_a_row_keep_their_places_beside_a_control_token() -> None:
    tokenizer = byte_level()
    words = ("see", " </s>", " now", " <|im_end|>")
    data, layout = TokensData(path="x"), Layout(("",), "", ends_with_eos=False)
    encoded = encode([Record("1", words, (0.0,) * 4, "")], tokenizer, data, layout, num_classes=2)
    assert encoded.words is not None
    (row,), (found,) = encoded.tokens, encoded.words
    ends = [int(place) + 1 for place in found[:, 1]]
    assert [tokenizer.decode(row[start:end]) for start, end in zip([0, *ends], ends, strict=False)] == list(words)


def test_a_settled_post_processor_adds_nothing() -> None:
    tokenizer = byte_level()
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    assert json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"] is not None
    assert end not in content(tokenizer, ["a <|im_end|>"])[0]
