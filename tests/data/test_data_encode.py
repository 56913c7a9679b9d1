"""Texts become token rows that fit, with exact spans; the cache never changes what comes out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from danube_sweep import paths
from danube_sweep.config.schema import Data, Head, Model, Side
from danube_sweep.data.encode import encode, encode_cached, fair_shares
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.generated import GeneratedData, generate
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.text import TextData
from danube_sweep.data.kinds.tokens import TokensData
from danube_sweep.data.layout import Layout, layout_for
from danube_sweep.data.records import Record, group_codes
from danube_sweep.errors import ConfigError, ModelError
from danube_sweep.head.kinds.causal import CausalHead
from danube_sweep.head.kinds.lm import LMHead
from danube_sweep.head.kinds.preference import PreferenceHead
from danube_sweep.head.kinds.sequence import SequenceHead
from danube_sweep.head.kinds.token import TokenHead

PLAIN = Layout(("",), "", ends_with_eos=True)
PAIR = Layout(("P: ", "\nA: ", "\nB: "), "\nbetter:", ends_with_eos=False)
TEXT = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT, *(" ".join(record.texts) for record in generate(50, 0, 0.0))], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def count(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def text_at(encoded: Encoded, tokenizer: PreTrainedTokenizerFast, row: int, text: int) -> str:
    start, end = encoded.spans[row, text]
    decoded: str = tokenizer.decode(encoded.tokens[row][start:end])
    return decoded


def same(one: Encoded, other: Encoded) -> bool:
    return (
        one.ids == other.ids
        and all(np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))
        and np.array_equal(one.spans, other.spans)
        and np.array_equal(one.weights, other.weights)
        and one.labels is not None
        and other.labels is not None
        and np.array_equal(one.labels, other.labels)
        and one.groups is not None
        and other.groups is not None
        and np.array_equal(one.groups, other.groups)
    )


# --------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("head", "variant", "after", "eos"),
    [
        (PreferenceHead(), "base", "", True),
        (PreferenceHead(), "chat", "</s><|answer|>", False),
        (CausalHead(), "base", "\n\nBetter answer:", False),
        (CausalHead(), "chat", "\n\nBetter answer:</s><|answer|>", False),
    ],
)
def test_pairs_are_laid_out_for_variant_and_head(head: Head, variant: str, after: str, eos: bool) -> None:
    layout = layout_for(Model(variant=variant), ArenaData(path="x"), head)
    start = "<|prompt|>Prompt: " if variant == "chat" else "Prompt: "
    assert layout == Layout((start, "\n\nAnswer A: ", "\n\nAnswer B: "), after, eos)


def test_a_model_that_wants_a_token_before_every_sequence_gets_it(tokenizer: PreTrainedTokenizerFast) -> None:
    record = [Record("1", ("one two three four five six seven eight nine ten " * 3,), None, "")]
    model, text, words = Model(start="<s>"), TextData(path=["x"], max_length=16), TokensData(path="x", max_length=16)
    for variant, begins in (("base", "<s>Prompt: "), ("chat", "<s><|prompt|>Prompt: ")):
        assert (
            layout_for(Model(start="<s>", variant=variant), ArenaData(path="x"), PreferenceHead()).before[0] == begins
        )
    table = TableData(path="x", max_length=16)
    single = encode(record, tokenizer, table, layout_for(model, table, SequenceHead()), num_classes=2)
    assert single.tokens[0][0] == 1 and len(single.tokens[0]) == 16
    running = encode(record, tokenizer, text, layout_for(model, text, LMHead()), num_classes=0)
    assert [int(piece[0] == 1) for piece in running.tokens] == [1] + [0] * (len(running.tokens) - 1)
    spoken = [replace(record[0], texts=tuple(record[0].texts[0].split()))]
    layouts = [layout_for(one, words, TokenHead()) for one in (model, Model())]
    begun, plain = (encode(spoken, tokenizer, replace(words, overlap=15), one, num_classes=2) for one in layouts)
    assert begun.words is not None and plain.words is not None
    assert all(len(piece) <= 16 and piece[0] == 1 for piece in begun.tokens)
    ends = [[int(part.tokens[row][at]) for row, here in enumerate(part.words or []) for at in here[:, 1]]
            for part in (begun, plain)]  # fmt: skip
    assert ends[0] == ends[1] and len(ends[0]) == len(spoken[0].texts)


@pytest.mark.parametrize(
    ("model", "start"), [("gemma_7b", "<bos>"), ("gemma2_9b", "<bos>"), ("mistral_7b", "<s>"),
                         ("deberta_v3_large", "[CLS]"), ("phi3_mini", ""), ("danube3_4b", "")]
)  # fmt: skip
def test_published_models_start_as_they_were_trained(model: str, start: str) -> None:
    assert compose([f"model={model}", "data.max_length=512"]).model.start == start


def test_single_texts_and_running_text_have_little_around_them() -> None:
    table, text = TableData(path="x"), TextData(path=["x"])
    assert layout_for(Model(), table, SequenceHead()) == PLAIN
    assert layout_for(Model(), table, CausalHead()) == Layout(("",), "\n\nLabel:", False)
    assert layout_for(Model(variant="chat"), table, SequenceHead()) == Layout(("<|prompt|>",), "</s><|answer|>", False)
    assert layout_for(Model(variant="chat"), text, LMHead()) == PLAIN


# -------------------------------------------------------------------------------------------------- encoding


def test_spans_hold_exactly_the_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    records = generate(50, 0, 0.0)
    encoded = encode(records, tokenizer, GeneratedData(max_length=1000), PAIR, num_classes=3)
    for row, record in enumerate(records):
        assert tuple(text_at(encoded, tokenizer, row, text) for text in range(3)) == record.texts
        whole = "P: {}\nA: {}\nB: {}\nbetter:".format(*record.texts)
        assert tokenizer.decode(encoded.tokens[row]) == whole
    assert encoded.labels is not None
    assert encoded.labels.tolist() == [list(record.label or ()) for record in records]
    assert encoded.weights.tolist() == [1.0] * 50
    assert encoded.lengths.tolist() == [len(row) for row in encoded.tokens]


@pytest.mark.parametrize("side", Side)
def test_cut_texts_fit_and_keep_what_surrounds_them(tokenizer: PreTrainedTokenizerFast, side: Side) -> None:
    texts = (TEXT, "short", TEXT * 30)
    overhead = sum(count(tokenizer, text) for text in (*PAIR.before, PAIR.after))
    data = GeneratedData(max_length=overhead + 60, truncation=side)
    encoded = encode([Record("1", texts, None, "")], tokenizer, data, PAIR, num_classes=3)
    assert encoded.lengths.tolist() == [overhead + 60]
    needs = [count(tokenizer, text) for text in texts]
    assert [int(end - start) for start, end in encoded.spans[0]] == fair_shares(needs, 60)
    assert encoded.sizes.tolist() == [needs]
    assert text_at(encoded, tokenizer, 0, 1) == "short"
    kept = text_at(encoded, tokenizer, 0, 2)
    ends = {Side.left: (False, True), Side.right: (True, False), Side.middle: (True, True)}[side]
    assert (kept.startswith("one two"), kept.endswith("ten")) == ends
    assert encoded.labels is None


@pytest.mark.parametrize(
    ("needs", "budget", "shares"),
    [
        ([5, 5, 5], 20, [5, 5, 5]),
        ([5, 5, 5], 15, [5, 5, 5]),
        ([100, 100, 100], 11, [4, 4, 3]),
        ([100, 2, 100], 11, [5, 2, 4]),
        ([0, 100, 100], 5, [0, 3, 2]),
        ([1, 1, 100], 3, [1, 1, 1]),
        ([4, 3, 100], 9, [3, 3, 3]),
        ([100], 7, [7]),
        ([0, 0, 0], 7, [0, 0, 0]),
    ],
)
def test_shares_fill_like_water(needs: list[int], budget: int, shares: list[int]) -> None:
    assert fair_shares(needs, budget) == shares


def test_shares_spend_the_budget_and_starve_no_text() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        needs = random.integers(0, 30, size=3).tolist()
        budget = int(random.integers(3, 60))
        shares = fair_shares(needs, budget)
        assert sum(shares) == min(budget, sum(needs))
        assert all(min(need, 1) <= share <= need for share, need in zip(shares, needs, strict=True))


def test_an_empty_text_has_an_empty_span(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode([Record("1", ("", "a", ""), None, "")], tokenizer, Data(), PAIR, num_classes=3)
    lengths = encoded.spans[0, :, 1] - encoded.spans[0, :, 0]
    assert lengths.tolist() == [0, 1, 0]


def test_a_length_without_room_is_refused_with_the_least_that_works(tokenizer: PreTrainedTokenizerFast) -> None:
    least = sum(count(tokenizer, text) for text in (*PAIR.before, PAIR.after)) + 3
    record = Record("1", (TEXT,) * 3, None, "")
    with pytest.raises(ConfigError, match=rf"data.max_length={least - 1} .* at least {least}"):
        encode([record], tokenizer, Data(max_length=least - 1), PAIR, num_classes=3)
    encoded = encode([record], tokenizer, Data(max_length=least), PAIR, num_classes=3)
    assert (encoded.spans[0, :, 1] - encoded.spans[0, :, 0]).tolist() == [1, 1, 1]


def test_a_tokenizer_without_an_end_token_is_refused_only_where_it_is_needed(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    record = Record("1", (TEXT,), (1.0, 0.0), "")
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        encode([record], endless, Data(), PLAIN, num_classes=2)
    encode([record], endless, Data(), replace(PLAIN, ends_with_eos=False), num_classes=2)


def test_running_text_is_cut_into_pieces_that_lose_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [TEXT * 9, "x", "", "caf\u00e9 \U0001f600"]
    records = [Record(str(n), (text,), None, text) for n, text in enumerate(texts)]
    encoded = encode(records, tokenizer, TextData(path=["x"], max_length=16), PLAIN, num_classes=0)
    assert encoded.labels is None
    assert max(encoded.lengths) == 16
    assert min(encoded.lengths) >= 2
    assert encoded.weights.tolist() == (encoded.lengths - 1).tolist()
    assert encoded.spans[:, 0].tolist() == [[0, length] for length in encoded.lengths]
    assert not any(name.startswith("2:") for name in encoded.ids)
    assert encoded.ids[:2] == ["0:0", "0:1"]
    for number, text in enumerate(texts):
        pieces = [row for name, row in zip(encoded.ids, encoded.tokens, strict=True) if name.startswith(f"{number}:")]
        whole = tokenizer.decode(np.concatenate(pieces)) if pieces else ""
        assert whole in (f"{text}</s>", text)


def test_nothing_to_encode_is_an_empty_part(tokenizer: PreTrainedTokenizerFast) -> None:
    for data in (Data(), TextData(path=["x"])):
        encoded = encode([], tokenizer, data, PLAIN, num_classes=2)
        assert (encoded.ids, encoded.tokens, len(encoded.weights)) == ([], [], 0)


# ----------------------------------------------------------------------------------------------------- cache


def cached(records: list[Record], tokenizer: PreTrainedTokenizerFast, data: Data) -> Encoded:
    return encode_cached(records, tokenizer, data, PAIR, num_classes=3)


def files() -> list[Path]:
    return sorted((paths.cache_dir() / "tokens").iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_the_cache_gives_what_encoding_gives(tokenizer: PreTrainedTokenizerFast) -> None:
    records, data = generate(30, 0, 0.1), GeneratedData(max_length=64)
    made = cached(records, tokenizer, data)
    assert same(made, encode(records, tokenizer, data, PAIR, num_classes=3))
    assert made.groups is not None
    assert made.groups.tolist() == group_codes([record.texts[0] for record in records]).tolist()  # by the prompt
    assert len(files()) == 1
    before = files()[0].stat().st_mtime_ns
    assert same(cached(records, tokenizer, data), made)
    assert files()[0].stat().st_mtime_ns == before
    unlabelled = [replace(record, label=None) for record in records]
    for _ in range(2):
        assert cached(unlabelled, tokenizer, data).labels is None
    text = TextData(path=["x"], max_length=64)
    for _ in range(2):
        assert encode_cached([], tokenizer, text, PLAIN, num_classes=0).ids == []


@pytest.mark.usefixtures("cache")
def test_whatever_changes_the_tokens_changes_the_cache_file(tokenizer: PreTrainedTokenizerFast) -> None:
    records, data = generate(10, 0, 0.1), GeneratedData(max_length=64)
    cached(records, tokenizer, data)
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=4)  # leaves its settings in the tokenizer
    cached(records, tokenizer, replace(data, seed=5, batching=data.batching))
    assert len(files()) == 1
    cached(records, tokenizer, replace(data, max_length=63))
    cached(records, tokenizer, replace(data, truncation=Side.right))
    cached(records[1:], tokenizer, data)
    cached([replace(record, label=(0.5, 0.5, 0.0)) for record in records], tokenizer, data)
    encode_cached(records, tokenizer, data, replace(PAIR, after="?"), num_classes=3)
    assert len(files()) == 6


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("harm", ["empty", "cut", "flipped", "garbage"])
def test_a_damaged_cache_file_is_made_again(tokenizer: PreTrainedTokenizerFast, harm: str) -> None:
    records, data = generate(30, 0, 0.1), GeneratedData(max_length=64)
    made = cached(records, tokenizer, data)
    (file,) = files()
    good = file.read_bytes()
    places = range(10, len(good), max(1, len(good) // 40)) if harm == "flipped" else [len(good) // 2]
    for place in places:
        flipped = good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]
        bad = {"empty": b"", "cut": good[:place], "flipped": flipped, "garbage": b"garbage"}
        file.write_bytes(bad[harm])
        assert same(cached(records, tokenizer, data), made)
    assert same(cached(records, tokenizer, data), made)
    assert files() == [file]


def test_a_cache_that_cannot_be_written_is_done_without(tokenizer: PreTrainedTokenizerFast, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    records, data = generate(3, 0, 0.1), GeneratedData(max_length=64)
    assert cached(records, tokenizer, data).ids == ["1", "2", "3"]
