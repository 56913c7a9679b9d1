"""The four kinds of data, their labels and their parts."""

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import compose

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Data, Target
from danube_sweep.data.arena_format import CLASSES, load_arena, read_arena, turns
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.generated import GeneratedData, bayes_log_loss, generate, write_csv
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.text import TextData
from danube_sweep.data.labels import sorted_classes
from danube_sweep.data.parts import load_parts, read_unlabelled
from danube_sweep.data.records import Record, swapped
from danube_sweep.data.split import split
from danube_sweep.data.table_columns import load_table
from danube_sweep.errors import ConfigError, DataError, DiskError


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def battle(label: tuple[Any, Any, Any], **columns: Any) -> dict[str, Any]:
    texts = {"id": 7, "prompt": '["p"]', "response_a": '["a"]', "response_b": '["b"]'}
    return {**texts, **dict(zip(CLASSES, label, strict=True)), **columns}


# ----------------------------------------------------------------------------------------------------- arena


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('["one", "two"]', "one\n\ntwo"),
        ('["one", null]', "one\n\n"),
        ("[null, null]", ""),
        ("[null]", ""),
        ("[]", ""),
        ("", ""),
        (None, ""),
        ('[1, 2.5, true, {"a": [1]}]', '1\n\n2.5\n\ntrue\n\n{"a": [1]}'),
        (r'["half \ud83d pair \ud83d\ude00"]', "half \ufffd pair \U0001f600"),
        ("plain text", "plain text"),
        ("[cut", "[cut"),
        ('{"a": 1}', '{"a": 1}'),
        ("[" * 100_000, "[" * 100_000),
        (["from", None, "parquet"], "from\n\n\n\nparquet"),
        (5, "5"),
    ],
)
def test_a_column_of_turns_becomes_one_text(cell: Any, text: str) -> None:
    assert turns(cell) == text
    turns(cell).encode()


@pytest.mark.parametrize("label", [("1", "0", "0"), ("1.0", "0.0", "0"), (1, 0, 0), ("True", "False", "False")])
def test_one_hot_labels_are_read_however_they_are_written(tmp_path: Path, label: tuple[Any, Any, Any]) -> None:
    (record,) = load_arena(table(tmp_path / "a.csv", [battle(label)]), soft_labels=False).records
    assert record == Record("7", ("p", "a", "b"), (1.0, 0.0, 0.0), group="p")


def test_parquet_and_jsonl_hold_real_lists_and_booleans(tmp_path: Path) -> None:
    row = battle((True, False, False), prompt=["p", None], response_a=[None], response_b=["b"])
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    for name in ("a.parquet", "a.jsonl"):
        (record,) = load_arena(tmp_path / name, soft_labels=False).records
        assert record == Record("7", ("p\n\n", "", "b"), (1.0, 0.0, 0.0), group="p\n\n")


def test_labels_that_are_not_one_hot_are_refused_with_lines_and_count(tmp_path: Path) -> None:
    bad: list[tuple[Any, Any, Any]] = [(0, 0, 0), (1, 1, 0), ("", 0, 1), ("x", 0, 1), ("nan", 0, 1), (2, 0, -1)]
    file = table(tmp_path / "a.csv", [battle((1, 0, 0)), *(battle(label) for label in bad), battle((0.5, 0.5, 0))])
    with pytest.raises(DataError, match=r"7 rows \(lines 3, 4, 5, 6, 7, …\) .*data.soft_labels=true"):
        load_arena(file, soft_labels=False)


def test_soft_labels_are_normalised_and_checked(tmp_path: Path) -> None:
    good = table(tmp_path / "good.csv", [battle((0.5, 0.2504, 0.25))])
    (record,) = load_arena(good, soft_labels=True).records
    assert record.label is not None
    assert sum(record.label) == pytest.approx(1, abs=1e-12)
    bad = table(tmp_path / "bad.csv", [battle((0.5, 0.3, 0.25)), battle((1.1, -0.1, 0)), battle(("inf", 0, 0))])
    with pytest.raises(DataError, match=r"3 rows \(lines 2, 3, 4\)"):
        load_arena(bad, soft_labels=True)


def test_swapping_twice_gives_the_record_back() -> None:
    record = Record("1", ("p", "a", "b"), (0.7, 0.2, 0.1), "p")
    assert swapped(record) == Record("1", ("p", "b", "a"), (0.2, 0.7, 0.1), "p")
    assert swapped(swapped(record)) == record
    assert swapped(Record("1", ("p", "a", "b"), None, "p")).label is None


def test_a_test_file_needs_no_labels_and_no_ids(tmp_path: Path) -> None:
    file = table(tmp_path / "test.csv", [{"prompt": "", "response_a": "[null]", "response_b": "[null]"}] * 2)
    assert [record.id for record in read_arena(file)] == ["1", "2"]
    config = GeneratedData()
    assert next(iter(read_unlabelled(config, file))) == Record("1", ("", "", ""), None, "")


def test_predicting_from_a_file_without_rows_or_for_text_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prompt,response_a,response_b\n")
    with pytest.raises(DataError, match=r"input=.*no rows"):
        list(read_unlabelled(ArenaData(path="x"), tmp_path / "a.csv"))
    with pytest.raises(DataError, match="head=lm predicts no classes"):
        read_unlabelled(TextData(path=["x"]), tmp_path / "a.csv")


# ----------------------------------------------------------------------------------------------------- table


def test_labels_are_the_strings_of_the_file(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(["NA", "None", "NO", "NA"])]
    records, classes, _ = load_table(table(tmp_path / "a.csv", rows), TableData(path=""), Target.one, classes=None)
    assert classes == ["NA", "NO", "None"]
    assert [record.label for record in records] == [(1, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert [record.id for record in records] == ["1", "2", "3", "4"]


def test_classes_that_look_like_numbers_sort_as_numbers() -> None:
    assert sorted_classes({"10", "9", "-1", "2.5"}) == ["-1", "2.5", "9", "10"]
    assert sorted_classes({"10", "9", "x"}) == ["10", "9", "x"]
    assert sorted_classes({"nan", "1", "-1"}) == ["-1", "1", "nan"]


def test_json_labels_and_texts_that_are_no_strings_are_taken_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 5, "label": true}\n{"text": "\\ud83d", "label": 1}\n')
    records, classes, _ = load_table(tmp_path / "a.jsonl", TableData(path=""), Target.one, classes=None)
    assert classes == ["1", "true"]
    assert [record.texts for record in records] == [("5",), ("\ufffd",)]


def test_a_label_outside_the_classes_is_named_with_its_line(tmp_path: Path) -> None:
    train = table(tmp_path / "a.csv", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(10)])
    other = table(tmp_path / "b.csv", [{"text": "x", "label": "a"}, {"text": "y", "label": "c"}])
    with pytest.raises(
        DataError, match=r"data.validation_path=.*line 3: the label 'c' is not one of the 2 classes \(a, b\)"
    ):
        load_parts(TableData(path=train, validation_path=other))
    with pytest.raises(DataError, match=r"data.path=.*line 3: the label 'b'"):
        load_parts(TableData(path=train, classes=["a", "x"]))


@pytest.mark.parametrize("column", ["text", "label"])
def test_missing_texts_and_labels_are_refused_and_empty_texts_kept(tmp_path: Path, column: str) -> None:
    rows = [{"text": "", "label": "a"}, {"text": "t", "label": "b"}, {"text": "t", "label": "a", column: None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"1 row \(line 3\) without a value in '{column}'"):
        load_table(tmp_path / "a.parquet", TableData(path=""), Target.one, classes=None)


def test_one_class_is_no_task(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", [{"text": f"t{n}", "label": "a"} for n in range(5)])
    with pytest.raises(DataError, match="its only class is 'a'"):
        load_parts(TableData(path=file))


def test_soft_label_columns_ids_and_groups_come_from_their_columns(tmp_path: Path) -> None:
    rows = [{"key": f"k{n}", "text": f"t{n}", "no": "0.25", "yes": 0.75, "user": n % 3} for n in range(9)]
    data = TableData(
        path=table(tmp_path / "a.csv", rows), id_column="key", group_column="user", soft_label_columns=["no", "yes"]
    )
    parts = load_parts(data)
    assert parts.classes == ["no", "yes"]
    assert parts.train[0].label == (0.25, 0.75)
    assert not {record.group for record in parts.train} & {record.group for record in parts.validation}
    assert all(record.id.startswith("k") for record in parts.train)
    data.classes = ["a", "b", "c"]
    with pytest.raises(ConfigError, match="3 names for the 2 columns"):
        load_parts(data)


def test_predicting_a_table_needs_only_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello\n\nworld\n")
    found = list(read_unlabelled(TableData(path="x", group_column="user"), tmp_path / "a.csv"))
    assert [(record.id, record.texts, record.label) for record in found] == [
        ("1", ("hello",), None),
        ("2", ("world",), None),
    ]


# ------------------------------------------------------------------------------------------------------ text


def test_texts_of_several_files_are_numbered_through(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"a{n}"}) + "\n" for n in range(6)))
    (tmp_path / "b.csv").write_text("text\nb0\nb1\n")
    parts = load_parts(TextData(path=[str(tmp_path / "a.jsonl")], validation_path=[str(tmp_path / "b.csv")]))
    assert [record.texts[0] for record in parts.train] == [f"a{n}" for n in range(6)]
    assert [record.id for record in parts.validation] == ["1", "2"]
    assert (parts.test, parts.classes) == ([], [])
    both = load_parts(TextData(path=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")]))
    assert sorted(record.id for record in both.train + both.validation) == [str(n) for n in range(1, 9)]


def test_one_file_of_text_is_the_trial_of_a_list_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "a.jsonl"
    one, listed = (compose(["data=text", "head=lm", f"data.path={value}"]) for value in (path, f"[{path}]"))
    assert one == listed
    assert trial_hash(one) == trial_hash(listed)
    for value in ("5", "[]", "[1]", "{a: 1}", "null"):
        with pytest.raises(
            ConfigError, match=r"^data\.path (must be a file or a list of files, got|needs at least one)"
        ):
            compose(["data=text", "head=lm", f"data.path={value}"])


def test_a_null_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    with pytest.raises(DataError, match=r"1 row \(line 2\) without a value in 'text'"):
        load_parts(TextData(path=[str(tmp_path / "a.jsonl")]))


# ------------------------------------------------------------------------------------------------- generated


def test_generated_records_are_the_same_everywhere_and_noise_moves_labels_alone() -> None:
    clear, noisy = generate(2000, 3, 0.0), generate(2000, 3, 0.2)
    assert generate(100, 3, 0.0) == clear[:100]
    assert [record.texts for record in clear] == [record.texts for record in noisy]
    moved = sum(a.label != b.label for a, b in zip(clear, noisy, strict=True)) / 2000
    assert moved == pytest.approx(0.2, abs=0.03)
    assert generate(3, 4, 0.0) != clear[:3]
    assert clear[0].texts == PINNED


PINNED = ("How many days are 80 weeks?", "Sure! The answer is 560 days.", "Let me think. First we have to")


def test_generated_labels_and_prompts_are_spread_as_promised() -> None:
    records = generate(5000, 0, 0.0)
    shares = Counter(record.label for record in records)
    assert shares[(1.0, 0.0, 0.0)] / 5000 == pytest.approx(0.35, abs=0.03)
    assert shares[(0.0, 0.0, 1.0)] / 5000 == pytest.approx(0.30, abs=0.03)
    assert len({record.group for record in records}) > 3000
    words = sorted(len(" ".join(record.texts).split()) for record in records)
    assert words[2500] < 60 < 100 < words[-50]


def test_right_beats_wrong_in_generated_sums() -> None:
    checked = 0
    for record in generate(5000, 1, 0.0):
        question, a, b = record.texts
        if not question.startswith("What is "):
            continue
        first, second = question.removeprefix("What is ").rstrip("?").split(" plus ") if " plus " in question else "00"
        digits = [[word.strip(".") for word in text.split() if word.strip(".").isdigit()] for text in (a, b)]
        right = [found == [str(int(first) + int(second))] for found in digits]
        if " plus " in question and right[0] != right[1]:
            assert record.label == ((1.0, 0.0, 0.0) if right[0] else (0.0, 1.0, 0.0))
            checked += 1
    assert checked > 100


def test_the_bayes_log_loss_is_the_entropy_of_the_noise() -> None:
    assert bayes_log_loss(0.0) == 0
    assert bayes_log_loss(0.1) == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.05)))
    assert load_parts(GeneratedData(rows=50, noise=0.1)).bayes_log_loss == bayes_log_loss(0.1)


def test_a_written_arena_file_reads_back_the_same(tmp_path: Path) -> None:
    records = generate(200, 0, 0.1)
    write_csv(records, tmp_path / "train.csv")
    assert load_arena(tmp_path / "train.csv", soft_labels=False).records == records
    with pytest.raises(DiskError, match="cannot be written"):
        write_csv(records, tmp_path / "none" / "train.csv")


# ----------------------------------------------------------------------------------------------------- parts


def records_of(groups: int, per_group: int = 2) -> list[Record]:
    return [Record(str(n), (f"t{n}",), None, f"g{n % groups}") for n in range(groups * per_group)]


def test_no_group_is_in_two_parts_and_every_row_is_in_one() -> None:
    rows = records_of(50)
    parts = split(rows, Data(validation_fraction=0.2, test_fraction=0.1))
    groups = [{record.group for record in part} for part in parts]
    assert [len(found) for found in groups] == [35, 10, 5]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert sorted(int(record.id) for part in parts for record in part) == list(range(100))
    assert all([int(record.id) for record in part] == sorted(int(record.id) for record in part) for part in parts)


def test_a_split_follows_its_seed_alone() -> None:
    rows = records_of(50)
    assert split(rows, Data(split_seed=1, max_length=64)) == split(rows, Data(split_seed=1))
    assert split(rows, Data(split_seed=1)) != split(rows, Data(split_seed=2))


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(DataError, match="1 groups of rows"):
        split(records_of(1, 10), Data())
    with pytest.raises(DataError, match="too few for every part"):
        split(records_of(2), Data(validation_fraction=0.4, test_fraction=0.4))


def test_parts_with_files_of_their_own_are_used_whole_and_max_rows_draws_of_each(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")]
    for number, file in enumerate(files):
        write_csv(generate(20 + number, number, 0.0), file)
    config = ArenaData(path=files[0], validation_path=files[1], test_path=files[2], test_fraction=0.5)
    parts = load_parts(config)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (20, 21, 22)
    config.max_rows = 5
    cut = load_parts(config)
    for some, every in zip(
        (cut.train, cut.validation, cut.test), (parts.train, parts.validation, parts.test), strict=True
    ):
        assert len(some) == 5
        assert some == [record for record in every if record in some]
        assert some != every[:5]


def test_a_file_with_a_header_alone_is_refused(tmp_path: Path) -> None:
    write_csv([], tmp_path / "a.csv")
    write_csv(generate(20, 0, 0.0), tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"data\.path: the file has no rows"):
        load_parts(ArenaData(path=str(tmp_path / "a.csv")))
    with pytest.raises(DataError, match=r"data\.validation_path: the file has no rows"):
        load_parts(ArenaData(path=str(tmp_path / "b.csv"), validation_path=str(tmp_path / "a.csv")))


# ------------------------------------------------------------------------------------------------- real data


def test_real_arena_files_load(data_dir: Path) -> None:
    parts = load_parts(ArenaData(path=str(data_dir / "arena_human.csv")))
    rows = parts.train + parts.validation
    assert len(rows) == 1574
    assert Counter(record.label for record in rows)[(0.0, 0.0, 1.0)] == 346
    predicted = list(read_unlabelled(ArenaData(path="x"), data_dir / "arena_kaggle" / "test.csv"))
    assert len(predicted) == 400
    assert all(record.texts[1] for record in predicted[:50])


def test_real_table_files_load(data_dir: Path) -> None:
    train, test = (str(data_dir / f"banking77_{part}.csv") for part in ("train", "test"))
    parts = load_parts(TableData(path=train, test_path=test, id_column="id"))
    assert len(parts.classes) == 77
    assert len(parts.train) + len(parts.validation) == 5030
    assert len(parts.test) == 1502


def test_real_text_loads(data_dir: Path) -> None:
    parts = load_parts(TextData(path=[str(data_dir / "lm_text.jsonl.gz")]))
    assert len(parts.train) + len(parts.validation) == 3908
