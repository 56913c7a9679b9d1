"""Labels by value, without blanks, and none that is missing."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danube_sweep.config.schema import Target
from danube_sweep.data.arena_format import load_arena, turns
from danube_sweep.data.kinds.pairs import PairsData, load_pairs
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.tokens import TokensData, load_words
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import LabelledRows
from danube_sweep.data.table_columns import load_table
from danube_sweep.errors import ConfigError, DataError


def written(folder: Path, labels: list[Any], name: str = "a.jsonl") -> Path:
    """A file of one text and one label a row."""
    file, rows = folder / name, [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif name.endswith(".csv"):
        file.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(file: Path, classes: list[str] | None = None, target: Target = Target.one) -> LabelledRows:
    return load_table(file, TableData(path=""), target, classes=classes)


def found(rows: LabelledRows) -> list[str]:
    """The class of every row."""
    return [rows.classes[int(np.argmax(record.label or ()))] for record in rows.records]


@pytest.mark.parametrize("target", [Target.one, Target.ordered])
def test_labels_that_are_all_numbers_are_one_class_by_value(tmp_path: Path, target: Target) -> None:
    rows = read(written(tmp_path, ["0", "1", "2", "0.0", "1.0", "2.00"] * 2, "a.csv"), target=target)
    assert rows.classes == ["0", "1", "2"]
    assert found(rows) == ["0", "1", "2"] * 4
    (note,) = rows.notes
    assert note.endswith("compare by value: 0 and 0.0 are one class, 1 and 1.0 are one class, 2 and 2.00 are one class")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_numbers_of_json_and_parquet_compare_by_value_too(tmp_path: Path, name: str) -> None:
    labels: list[Any] = [1.0, 0.0, 3.5] if name.endswith(".parquet") else [1.0, 0, "3.5", 1, 0.0, "03.50"]
    expected = ["0.0", "1.0", "3.5"] if name.endswith(".parquet") else ["0", "1", "3.5"]
    assert read(written(tmp_path, labels, name)).classes == expected


def test_numbers_beside_a_text_stay_texts(tmp_path: Path) -> None:
    rows = read(written(tmp_path, ["1.10", "1.1", "latest", "1.10"]))
    assert rows.classes == ["1.1", "1.10", "latest"]
    assert rows.notes == []


def test_numbers_compare_exactly(tmp_path: Path) -> None:
    large = [2**53, 2**53 + 1]  # as floats they are equal
    assert read(written(tmp_path, large)).classes == [str(number) for number in large]


def test_blanks_around_labels_are_left_out_and_told(tmp_path: Path) -> None:
    rows = read(written(tmp_path, ["neg ", "neg", "\tpos", "pos"]))
    assert found(rows) == ["neg", "neg", "pos", "pos"]
    (note,) = rows.notes
    assert note.endswith("blanks around labels are dropped in 2 rows (lines 1, 3), like 'neg '")


@pytest.mark.parametrize("missing", [None, math.nan, "", "  ", "NaN", "nan"])
def test_missing_labels_are_refused_with_their_lines(tmp_path: Path, missing: Any) -> None:
    for others in (["a", "b"], [0.0, 1.0]):
        with pytest.raises(DataError, match=r"2 rows \(lines 2, 5\) without a value in 'label'"):
            read(written(tmp_path, [others[0], missing, others[1], others[0], missing]))


def test_na_is_a_class_beside_texts_and_missing_beside_numbers(tmp_path: Path) -> None:
    assert read(written(tmp_path, ["no", "null", "NA", "None"])).classes == ["NA", "None", "no", "null"]
    with pytest.raises(DataError, match=r"2 rows \(lines 3, 5\) without a value"):
        read(written(tmp_path, ["0", "null", "1", "N/A"], "a.csv"))


def test_classes_that_differ_in_case_alone_stay_apart_and_are_named(tmp_path: Path) -> None:
    rows = read(written(tmp_path, ["Neg", "neg", "pos"]))
    assert rows.classes == ["Neg", "neg", "pos"]
    assert rows.notes[0].endswith("differ only in upper and lower case or form: 'Neg' and 'neg'")


def test_labels_of_other_files_and_of_data_classes_are_found_by_value(tmp_path: Path) -> None:
    train = written(tmp_path, [0, 1, 2] * 4)
    own = written(tmp_path, ["2.0", " 1", "0"], "b.csv")
    parts = load_parts(TableData(path=str(train), validation_path=str(own)))
    assert [record.label for record in parts.validation] == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert len(parts.notes) == 2
    assert found(read(train, ["2", "1.0", "0"])) == ["0", "1.0", "2"] * 4
    with pytest.raises(ConfigError, match=r"two of 0, 1, 0\.0, 2 are the same class"):
        read(train, ["0", "1", "0.0", "2"])


def test_dates_and_decimals_of_parquet_are_classes_as_they_print(tmp_path: Path) -> None:
    assert read(written(tmp_path, [Decimal("1.50"), Decimal("2.00")], "a.parquet")).classes == ["1.50", "2.00"]


def test_several_labels_a_row_are_read_alike(tmp_path: Path) -> None:
    rows = read(written(tmp_path, [["a ", "b"], [], ["b"]]), target=Target.many)
    assert [record.label for record in rows.records] == [(1, 1), (0, 0), (0, 1)]
    assert len(rows.notes) == 1
    with pytest.raises(DataError, match=r"1 row \(line 2\) without a value in 'label'"):
        read(written(tmp_path, [["a"], ["b", None]]), target=Target.many)


def test_labels_of_words_are_read_alike(tmp_path: Path) -> None:
    def words(labels: list[Any]) -> LabelledRows:
        (tmp_path / "w.jsonl").write_text(json.dumps({"tokens": ["x"] * len(labels), "labels": labels}) + "\n")
        return load_words(tmp_path / "w.jsonl", TokensData(path=""), classes=None)

    assert words(["O", "B-NAME ", "B-NAME"]).classes == ["O", "B-NAME"]
    assert words(["O", "B-NAME ", "B-NAME"]).records[0].label == (0, 1, 1)
    assert words([0, 3, 3.0]).classes == ["0", "3"]
    for missing in (None, "", math.nan):
        with pytest.raises(DataError, match=r"1 row \(line 1\) without a value in 'labels'"):
            words(["O", missing])


def test_winners_are_found_by_value_and_without_blanks(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response_a": "a", "response_b": "b", "winner": winner} for winner in (0, "1 ", 0.0, "tie")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = PairsData(path="", a_label="0", b_label="1", tie_labels=[])
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    assert [record.label for record in load_pairs(tmp_path / "b.jsonl", data).records] == [(1, 0), (0, 1), (1, 0)]
    assert len(load_pairs(tmp_path / "b.jsonl", data).notes) == 2
    with pytest.raises(DataError, match=r"1 row \(line 4\) whose winner is not one of 0, 1"):
        load_pairs(tmp_path / "a.jsonl", data)
    with pytest.raises(ConfigError, match="must all differ"):
        PairsData(path="", a_label="1", b_label="1.0").check()


# ------------------------------------------------------------------------------------- lists that Python printed


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        (["a", "b"], "a\n\nb"),
        (["it's", None], "it's\n\n"),
        (['say "hi"\nthere'], 'say "hi"\nthere'),
        (["back\\slash", "[x]", "a' 'b"], "back\\slash\n\n[x]\n\na' 'b"),
        ([None], ""),
    ],
)
def test_a_list_that_python_printed_is_read_as_turns(listed: list[str | None], text: str) -> None:
    assert turns(str(listed)) == text == turns(json.dumps(listed))


@pytest.mark.parametrize(
    "text", ["['a'] and more", "[INST] hello", "['a', b]", "['a' + 'b']", "[f'{x}']", "['a', ['b']]", "['a", "[b'x']"]
)
def test_a_text_that_only_looks_like_a_list_stays_a_text(text: str) -> None:
    assert turns(text) == text


def test_an_arena_file_tells_of_printed_lists_and_refuses_arrays(tmp_path: Path) -> None:
    def arena(prompt: str) -> LabelledRows:
        head = "id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
        (tmp_path / "a.csv").write_text(f"{head}1,{prompt},['x'],[null],1,0,0\n")
        return load_arena(tmp_path / "a.csv", soft_labels=False)

    rows = arena("\"['one', None]\"")
    assert rows.records[0].texts == ("one\n\n", "x", "")
    assert rows.notes == [
        f"data.path={tmp_path / 'a.csv'}: lists in Python's notation, read as lists, in 1 row (line 2)"
    ]
    with pytest.raises(DataError, match=r"line 2: 'prompt' is an array as numpy prints it"):
        arena(f'"{np.array(["one", "two"])}"')
