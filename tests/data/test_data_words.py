"""Words with labels, pairs in plain columns, numbers, lists of classes and json files: read, refused, aligned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danube_sweep.config.schema import Config, Model, Target
from danube_sweep.data.batches import collate
from danube_sweep.data.encode import encode, encode_cached
from danube_sweep.data.kinds.pairs import PairsData, load_pairs
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.tokens import TokensData, load_words
from danube_sweep.data.layout import layout_for
from danube_sweep.data.parts import load_parts, read_unlabelled
from danube_sweep.data.read_files import count_rows
from danube_sweep.data.records import Record
from danube_sweep.data.table_columns import load_table
from danube_sweep.errors import DataError
from danube_sweep.head.kinds.token import TokenHead
from danube_sweep.training.prepare import prepare

Tiny = Callable[..., Config]


def jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


WORDS = [
    {"document": 7, "tokens": ["Ann", "'s", "boat", "\n\n", "sank"], "labels": ["B-NAME", "O", "O", "O", "O"],
     "trailing_whitespace": [False, True, False, False, False]},
    {"document": 8, "tokens": ["Bo"], "labels": ["B-NAME"], "trailing_whitespace": [False]},
]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- words


def test_words_carry_the_space_before_them(tmp_path: Path) -> None:
    data = TokensData(path="", whitespace_column="trailing_whitespace", id_column="document")
    records, classes, _ = load_words(jsonl(tmp_path / "a.jsonl", WORDS), data, classes=None)
    assert classes == ["O", "B-NAME"]
    assert records[0] == Record("7", ("Ann", "'s", " boat", "\n\n", "sank"), (1, 0, 0, 0, 0), "Ann's boat\n\nsank")
    plain, *_ = load_words(tmp_path / "a.jsonl", TokensData(path=""), classes=None)
    assert plain[0].texts[:3] == ("Ann", " 's", " boat")


def test_a_json_list_reads_like_lines_of_json(tmp_path: Path) -> None:
    data = TokensData(path="", id_column="document")
    lines, *_ = load_words(jsonl(tmp_path / "a.jsonl", WORDS), data, classes=None)
    (tmp_path / "a.json").write_text(json.dumps(WORDS))
    assert load_words(tmp_path / "a.json", data, classes=None)[0] == lines
    assert count_rows(tmp_path / "a.json") == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tokens": ["a", "b"], "labels": ["O"]}, "line 2: 1 labels for 2 words"),
        ({"tokens": [], "labels": []}, "line 2: no words in 'tokens'"),
        ({"tokens": "a b", "labels": ["O"]}, "line 2: 'tokens' must be a list"),
        ({"tokens": ["a"], "labels": ["B-X"]}, "line 2: the label 'B-X' is not one of the 2 classes"),
        ({"tokens": ["a"], "labels": None}, "line 2: 'labels' must be a list"),
    ],
)
def test_a_bad_row_of_words_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"tokens": ["a"], "labels": ["O"]}, row])
    with pytest.raises(DataError, match=said):
        load_words(file, TokensData(path=""), classes=["O", "B-NAME"])


@pytest.mark.parametrize("text", ["{}", "[]", "[1]", "{", '{"a": 1}\n{"a": 2}'])
def test_a_json_file_that_is_no_list_of_objects_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        list(read_unlabelled(TokensData(path=""), tmp_path / "a.json"))


@pytest.mark.parametrize("length", [16, 24, 2048])
def test_every_word_is_classified_once_at_its_last_token(tiny: Tiny, tmp_path: Path, length: int) -> None:
    words = [
        "Wéll",
        ",",
        "Ann-Marie",
        "'s",
        "\n\n",
        "extraordinarily",
        "(",
        "small",
        ")",
        "boat",
        "…",
        "😀",
        "x" * 30,
    ] * 3
    rows = [{"tokens": words, "labels": [["O", "B-X"][k % 2] for k in range(len(words))]}] * 12
    file = jsonl(tmp_path / "a.jsonl", rows)
    config = tiny("head=token", "data=tokens", f"data.path={file}", f"data.max_length={length}", "data.overlap=8",
                  "data.validation_path=" + str(jsonl(tmp_path / "b.jsonl", rows[:2])))  # fmt: skip
    prepared = prepare(config)
    part, tokenizer = prepared.parts["validation"], prepared.tokenizer
    assert part.words is not None and max(part.lengths) <= length
    assert part.examples == [f"{text}:{number}" for text in (1, 2) for number in range(len(words))]
    # Both documents have the same text, which is what a group of words is.
    assert part.example_groups is not None and len(set(part.example_groups.tolist())) == 1
    assert len(part.example_groups) == len(part.examples)
    labels = np.concatenate(part.words)[:, 2]
    assert labels.tolist() == [prepared.classes.index(["O", "B-X"][k % 2]) for k in range(len(words))] * 2
    pieces = zip(part.ids, part.tokens, part.words, strict=True)
    for name, tokens, here in pieces:
        for number, position, _ in here.tolist():
            read = tokenizer.decode(tokens[: position + 1]).rstrip()
            assert read.endswith(words[number].rstrip()[-1:]), (name, number, read[-20:])


def test_pieces_repeat_the_end_of_the_one_before(tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"tokens": [f"w{k}" for k in range(60)], "labels": ["O"] * 59 + ["B-X"]}] * 10
    file = jsonl(tmp_path / "a.jsonl", rows)
    held_out = jsonl(tmp_path / "b.jsonl", rows[:9])
    base = ["head=token", "data=tokens", f"data.path={file}", f"data.validation_path={held_out}", "data.max_length=32"]
    apart, lapped = (prepare(tiny(*base, f"data.overlap={size}")).parts["validation"] for size in (0, 8))
    assert len(lapped.ids) > len(apart.ids)
    assert apart.words is not None and lapped.words is not None
    assert min(words[:, 1].min() for words in lapped.words[1:2]) >= 8
    assert np.array_equal(np.concatenate(apart.words)[:, [0, 2]], np.concatenate(lapped.words)[:, [0, 2]])
    assert np.array_equal(lapped.tokens[1][:8], lapped.tokens[0][-8:])


def test_words_come_back_from_the_cache_as_they_were(tiny: Tiny, tmp_path: Path) -> None:
    data = TokensData(path="", max_length=32, overlap=4)
    records, classes, _ = load_words(jsonl(tmp_path / "a.jsonl", WORDS * 8), data, classes=None)
    tokenizer = prepare(tiny()).tokenizer
    layout = layout_for(Model(), data, TokenHead())
    fresh = encode(records, tokenizer, data, layout, num_classes=len(classes))
    for _ in range(2):
        kept = encode_cached(records, tokenizer, data, layout, num_classes=len(classes))
        assert kept.words is not None and fresh.words is not None and kept.ids == fresh.ids
        assert all(np.array_equal(one, other) for one, other in zip(kept.words, fresh.words, strict=True))
        assert all(np.array_equal(one, other) for one, other in zip(kept.tokens, fresh.tokens, strict=True))
    left, right = (collate(fresh, np.arange(2), 0, side) for side in ("left", "right"))
    assert left.words_P3 is not None and right.words_P3 is not None
    for batch in (left, right):
        ids = batch.input_ids_BT[batch.words_P3[:, 0], batch.words_P3[:, 1]]  # type: ignore[index]
        wanted = np.concatenate([fresh.tokens[row][fresh.words[row][:, 1]] for row in range(2)])
        assert ids.tolist() == wanted.tolist()


# --------------------------------------------------------------------------------------------------------- pairs


PAIRS = [
    {"prompt": "p", "response_a": "x", "response_b": "y", "winner": "model_a"},
    {"prompt": "[1]", "response_a": "", "response_b": None, "winner": "model_b"},
]


def test_pairs_are_texts_as_they_stand(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", PAIRS)
    found = load_pairs(file, PairsData(path="")).records
    assert found == [Record("1", ("p", "x", "y"), (1, 0), "p"), Record("2", ("[1]", "", ""), (0, 1), "[1]")]
    assert next(iter(read_unlabelled(PairsData(path=""), file))).label is None


def test_ties_are_a_third_class_by_whatever_names(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [*PAIRS, {**PAIRS[0], "winner": "tie (bothbad)"}])
    held_out = jsonl(tmp_path / "b.jsonl", PAIRS)
    data = PairsData(path=str(file), tie_labels=["tie", "tie (bothbad)"], validation_path=str(held_out))
    parts = load_parts(data)
    assert parts.classes == ["model_a", "model_b", "tie"] and parts.train[2].label == (0, 0, 1)
    with pytest.raises(DataError, match=r"1 row \(line 3\) whose winner is not one of model_a, model_b"):
        load_pairs(file, PairsData(path=""))


def test_without_a_prompt_a_row_and_its_copy_in_the_other_order_stay_together(tmp_path: Path) -> None:
    rows = [{**PAIRS[0]}, {**PAIRS[0], "response_a": "y", "response_b": "x"}]
    found = load_pairs(jsonl(tmp_path / "a.jsonl", rows), PairsData(path="", prompt_column=None)).records
    assert found[0].group == found[1].group and found[0].texts == ("", "x", "y")


# --------------------------------------------------------------------------------------- numbers, several classes


def test_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\na,1\nb,-2.5e1\n")
    records, classes, _ = load_table(file, TableData(path=""), Target.number, classes=None)
    assert [record.label for record in records] == [(1.0,), (-25.0,)] and classes == ["label"]
    file.write_text("text,label\na,1\nb,many\nc,nan\nd,\n")
    with pytest.raises(DataError, match=r"3 rows \(lines 3, 4, 5\) without a finite number in 'label'"):
        load_table(file, TableData(path=""), Target.number, classes=None)


def test_a_row_has_any_number_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text,label\na,"[""x"", ""y""]"\nb,[]\nc,"[""y""]"\n')
    records, classes, _ = load_table(file, TableData(path=""), Target.many, classes=None)
    assert classes == ["x", "y"] and [record.label for record in records] == [(1, 1), (0, 0), (0, 1)]
    file.write_text("text,label\na,x\n")
    with pytest.raises(DataError, match=r"line 2: head=multilabel reads a list of classes"):
        load_table(file, TableData(path=""), Target.many, classes=None)


def test_columns_of_classes_need_not_sum_to_one_where_a_row_may_have_several(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,toxic,rude\na,1,1\nb,0,0.5\n")
    data = TableData(path="", soft_label_columns=["toxic", "rude"])
    records, classes, _ = load_table(file, data, Target.many, classes=None)
    assert classes == ["toxic", "rude"] and [record.label for record in records] == [(1, 1), (0, 0.5)]
    file.write_text("text,toxic,rude\na,2,1\n")
    with pytest.raises(DataError, match="probabilities, 0 to 1 each"):
        load_table(file, data, Target.many, classes=None)


def test_ordered_classes_need_an_order(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"text": str(k), "label": ["low", "high"][k % 2]} for k in range(20)])
    with pytest.raises(
        DataError, match="head=ordinal needs ordered classes, and 'high' is not a number; list the order in data"
    ):
        load_parts(TableData(path=str(file)), Target.ordered)
    assert load_parts(TableData(path=str(file), classes=["low", "high"]), Target.ordered).classes == ["low", "high"]


def test_the_real_entities_and_scores_are_read_whole(data_dir: Path) -> None:
    train, test = (str(data_dir / f"wnut17_{part}.jsonl") for part in ("train", "test"))
    parts = load_parts(TokensData(path=train, validation_path=str(data_dir / "wnut17_dev.jsonl"), test_path=test))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [1667, 489, 628]
    assert len(parts.classes) == 13 and parts.classes[0] == "O"
    scores = load_parts(TableData(path=str(data_dir / "score_1_to_10.csv")), Target.number)
    assert {record.label for record in scores.train} <= {(float(score),) for score in range(1, 11)}
