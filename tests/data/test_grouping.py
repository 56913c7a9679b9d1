"""Rows that belong together stay in one part, whatever the kind of data; samples keep the classes' shares."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import compose
from sklearn.model_selection import train_test_split

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Columns, Data, GroupBy, TableColumns
from danube_sweep.data.grouping import template
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.pairs import PairsData
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.text import TextData
from danube_sweep.data.kinds.tokens import TokensData
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import Record
from danube_sweep.data.sample import sampled
from danube_sweep.data.split import split
from danube_sweep.errors import ConfigError, DataError

CITIES = ["Paris", "Rome", "New York", "Oslo", "Lima"]


def lines(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def of_every_kind(folder: Path) -> list[Columns]:
    """Forty rows of each kind of file, ten users with four rows each."""
    rows = [
        {
            "text": f"text {n}", "label": "ab"[n % 2], "user": f"u{n % 10}",
            "tokens": [f"w{n}", "x"], "labels": ["O", "B-X"],
            "prompt": f"p{n}", "response_a": "a", "response_b": "b", "winner": ["model_a", "model_b"][n % 2],
            "winner_model_a": n % 2, "winner_model_b": 1 - n % 2, "winner_tie": 0,
        }
        for n in range(40)
    ]  # fmt: skip
    path = lines(folder / "a.jsonl", rows)
    kinds: list[Columns] = [
        TableData(path=path),
        TokensData(path=path),
        ArenaData(path=path),
        PairsData(path=path),
        TextData(path=[path]),
    ]
    return kinds


def test_a_group_column_keeps_rows_together_in_every_kind_of_data(tmp_path: Path) -> None:
    for data in of_every_kind(tmp_path):
        data.group_column = "user"
        parts = load_parts(data)
        users = [{f"u{(int(record.id) - 1) % 10}" for record in part} for part in (parts.train, parts.validation)]
        assert [len(found) for found in users] == [8, 2], data
        assert not users[0] & users[1], data
        folds = [load_parts(replace(data, folds=5, fold=fold)).validation for fold in range(5)]
        assert sorted(len({record.group for record in fold}) for fold in folds) == [2] * 5


def test_a_missing_group_is_refused_with_its_lines(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 2, "user": None if n == 3 else n} for n in range(9)]
    with pytest.raises(DataError, match=r"1 row \(line 4\) without a value in 'user'"):
        load_parts(TableData(path=lines(tmp_path / "a.jsonl", rows), group_column="user"))


def test_equal_texts_are_one_group_but_for_case_and_blanks() -> None:
    rows = [Record(str(n), (f"  Text {n % 10}" if n % 2 else f"text  {n % 10} ",), None, str(n)) for n in range(40)]
    train, validation, _ = split(rows, TableColumns(group_by=GroupBy.text))
    assert len(train) + len(validation) == 40
    assert not {int(row.id) % 10 for row in train} & {int(row.id) % 10 for row in validation}
    loose = split(rows, TableColumns())
    assert {int(row.id) % 10 for row in loose[0]} & {int(row.id) % 10 for row in loose[1]}


def test_a_group_by_text_joins_the_groups_of_a_column() -> None:
    # u0 and u1 share a text, u1 and u2 another: they are one group; the others stand alone.
    texts = ["a", "b", "b", "c", "c", "d"]
    users = ["u0", "u0", "u1", "u1", "u2", "u2"]
    chain = [Record(str(n), (text,), None, user) for n, (text, user) in enumerate(zip(texts, users, strict=True))]
    others = [Record(str(n), (f"t{n}",), None, f"v{n}") for n in range(6, 30)]
    for seed in range(5):
        train, _, _ = split([*chain, *others], TableColumns(group_by=GroupBy.text, split_seed=seed))
        assert sum(row in chain for row in train) in (0, 6)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("The train to Paris leaves at 10:30", "The train to New York leaves at 8", True),
        ('He said "stop it" to me twice', "He said “go on, please” to me twice", True),
        ("Write to jo@a.org about order 17", "Write to max.mustermann@b.com about order 4", True),
        ("What is the capital of France?", "What is the population of France?", False),
        ("card 4 was lost", "card 5 was stolen", False),
        ("How To Cook Rice", "How To Clean Shoes", False),
        ("5", "6", False),
    ],
)
def test_a_template_is_the_text_without_what_varies(one: str, other: str, alike: bool) -> None:
    assert (template(one) == template(other)) is alike


def entities(number: int) -> dict[str, Any]:
    """A sentence made from one of six templates, with entities of one word or of two."""
    city = CITIES[number % 5].split()
    start = [["I", "live", "in"], ["Flights", "to"], ["From"], ["Near"], ["Is", "it", "hot", "in"], ["Go", "to"]]
    words = [*start[number % 6], *city, "today"]
    labels = ["O"] * (len(words) - 1 - len(city)) + ["B-CITY", "I-CITY"][: len(city)] + ["O"]
    return {"tokens": words, "labels": labels}


def test_words_of_one_template_stay_together_whatever_entities_fill_it(tmp_path: Path) -> None:
    data = TokensData(path=lines(tmp_path / "a.jsonl", [entities(n) for n in range(30)]), group_by=GroupBy.template)
    parts = load_parts(data)
    of = [{(int(record.id) - 1) % 6 for record in part} for part in (parts.train, parts.validation)]
    assert not of[0] & of[1]
    assert len(of[0] | of[1]) == 6
    loose = load_parts(replace(data, group_by=None))
    assert {(int(record.id) - 1) % 6 for record in loose.validation} <= {(int(r.id) - 1) % 6 for r in loose.train}


def test_real_entity_data_made_from_templates_is_split_between_them(data_dir: Path) -> None:
    def shape(record: Record) -> str:
        kept = [
            word
            for word, place in zip(record.texts, record.label or (), strict=True)
            if parts.classes[int(place)] == "O"
        ]
        return "".join(kept).strip()

    data = TokensData(path=str(data_dir / "pii.jsonl"))
    for by, most in [(None, 1.0), (GroupBy.template, 0.02)]:
        parts = load_parts(replace(data, group_by=by))
        trained = {shape(record) for record in parts.train}
        share = sum(shape(record) in trained for record in parts.validation) / len(parts.validation)
        assert (share > 0.8) if by is None else (share <= most)


def test_a_group_by_with_nothing_to_divide_is_refused_and_is_part_of_the_trial(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"text": f"t{n}", "label": n % 2} for n in range(9)])
    table = ["data=table", f"data.path={path}", "head=sequence"]
    with pytest.raises(ConfigError, match=r"data\.group_by=text groups .* with data\.validation_path none are"):
        compose([*table, f"data.validation_path={path}", "data.group_by=text"])
    config = compose(table)
    trials = [replace(config, data=replace(config.data, group_by=by)) for by in (None, GroupBy.text, GroupBy.template)]
    assert len({trial_hash(trial) for trial in trials}) == 3
    assert trial_hash(trials[0]) == trial_hash(config)


# ---------------------------------------------------------------------------------------------------- max_rows


def test_max_rows_draws_the_classes_in_their_shares_as_scikit_learn_does() -> None:
    kinds = [0] * 500 + [1] * 300 + [2] * 183 + [3] * 17
    rows = [Record(str(n), ("t",), tuple(float(k == kind) for k in range(4)), str(n)) for n, kind in enumerate(kinds)]
    some = sampled(rows, Data(max_rows=100))
    ours = Counter(kinds[int(row.id)] for row in some)
    theirs = Counter(kinds[n] for n in train_test_split(range(1000), train_size=100, stratify=kinds, random_state=0)[0])
    assert ours == theirs == {0: 50, 1: 30, 2: 18, 3: 2}
    assert [int(row.id) for row in some] == sorted(int(row.id) for row in some)


def test_a_sample_follows_the_split_seed_alone_and_reaches_the_end_of_the_file() -> None:
    rows = [Record(str(n), ("t",), (float(n),), str(n)) for n in range(1000)]
    some = sampled(rows, Data(max_rows=100))
    assert some == sampled(rows, Data(max_rows=100, order_seed=5, max_length=64))
    assert some != sampled(rows, Data(max_rows=100, split_seed=1))
    assert max(int(row.id) for row in some) > 900
    assert sampled(rows, Data(max_rows=1000)) == sampled(rows, Data()) == rows
