"""A damaged file is one line with the file, the line and the way out; it is never fewer rows."""

import gzip
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.pairs import PairsData
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.tokens import TokensData
from danube_sweep.data.read_files import clean, count_rows, read_rows
from danube_sweep.data.size import longest_row
from danube_sweep.errors import DataError

COLUMNS = ["id", "text"]


def rows(path: Path, columns: list[str] = COLUMNS) -> list[tuple[int, dict[str, Any]]]:
    return list(read_rows(path, columns))


def refusal(path: Path, columns: list[str] = COLUMNS) -> str:
    with pytest.raises(DataError) as caught:
        rows(path, columns)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"data.path={path}")
    return message


def written(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.CSV"])
def test_csv_rows_come_with_the_line_they_start_in(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, 'id,text\n1,"two\nlines"\n\n2,"a ""quote"", and a comma"\r\n3,\n')
    assert rows(file) == [
        (2, {"id": "1", "text": "two\nlines"}),
        (5, {"id": "2", "text": 'a "quote", and a comma'}),
        (6, {"id": "3", "text": ""}),
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tsv_rows_are_separated_by_tabs(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, 'id\ttext\n1\tone, two; three\n2\t"tab\there"\n')
    assert rows(file) == [(2, {"id": "1", "text": "one, two; three"}), (3, {"id": "2", "text": "tab\there"})]
    assert count_rows(file) == 2


def test_a_zip_archive_is_refused_with_the_names_of_its_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.csv", "id,text\n1,a\n")
    assert "a zip archive of 'train.csv'; unpack it" in refusal(tmp_path / "a.zip")


def test_csv_values_stay_the_strings_they_are(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", b"\xef\xbb\xbfid,text\nNA,None\nNO,1e-4\n")
    assert [tuple(row.values()) for _, row in rows(file)] == [("NA", "None"), ("NO", "1e-4")]


def test_csv_fields_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "id,text\n1," + "x" * 300_000 + "\n")
    assert len(rows(file)[0][1]["text"]) == 300_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_jsonl_rows_come_with_their_line(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, '{"id": 1, "text": "a\u2028b"}\n\n{"id": 2, "text": null, "more": []}\r\n')
    assert rows(file) == [(1, {"id": 1, "text": "a\u2028b"}), (3, {"id": 2, "text": None, "more": []})]


def test_parquet_rows_come_with_their_number(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": list(range(3000)), "text": ["x", None, "z"] * 1000}), file)
    found = rows(file)
    assert len(found) == 3000
    assert found[1] == (2, {"id": 1, "text": None})
    assert found[-1][0] == 3000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n\n", "the file is empty"),
        ("a.csv.gz", "", "the file is empty"),
        ("a.jsonl", "  \n", "the file is empty"),
        ("a.csv", "id,txet\n1,a\n", "line 1: no column 'text'; did you mean 'txet'? it has 'id', 'txet'"),
        ("a.csv", "id;text\n1;a\n", "line 1: separated by semicolons: 'id;text'; save it with commas, or with tabs"),
        ("a.csv", "id\ttext\n1\ta\n", "line 1: separated by tabs: 'id\\ttext'; name it .tsv"),
        ("a.csv", "id|text\n1|a\n", "line 1: separated by vertical bars"),
        ("a.tsv", "id,text\n1,a\n", "line 1: separated by commas: 'id,text'; name it .csv"),
        ("a.csv.zip", "no archive", "a zip archive; unpack it and give the file in it"),
        ("a.csv", "id,text,id\n1,a,2\n", "the column 'id' occurs twice; rename one"),
        ("a.csv", "id,text\n1,a\n2,b,c\n", "line 3: 3 fields, but the header has 2"),
        ("a.csv", "id,text\n1\n", "line 2: 1 fields"),
        ("a.csv", 'id,text\n1,a\n2,"b\n3,c\n4,d\n', "line 3: a quote opened in this row is never closed"),
        ("a.csv", 'id,text\n1,"a" b\n', "line 2: ',' expected after '\"' (seen in line 2)"),
        ("a.csv", b"id,text\n1,a\n2,caf\xe9\n", "line 3: not UTF-8"),
        ("a.csv", "id,text\n1,a\n".encode("utf-16"), "line 1: not UTF-8"),
        ("a.csv", b"id,text\n1,a\0b\n", "line 2: a NUL byte"),
        ("a.jsonl", b'{"id": 1, "text": "\xff"}\n', "line 1: not UTF-8"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 2, "te\n', "line 2: not valid JSON"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: not valid JSON"),
        ("a.jsonl", '["a"]\n', "line 1: a JSON list; each line must be one JSON object"),
        ("a.jsonl", '{"id": 1, "text": "a"}\n{"id": 2}\n', "line 2: no column 'text'; it has 'id'"),
        ("a.parquet", "", "the file is empty"),
        ("a.parquet", "PAR1 not really PAR1", "damaged or not parquet"),
        ("a.txt", "x", "its name must end in .csv"),
        ("a.parquet.gz", "x", "its name must end in .csv"),
        ("a", "x", "its name must end in .csv"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    assert said in refusal(written(tmp_path / name, content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "a folder, not a file" in refusal(tmp_path / "folder.csv")


def test_a_missing_parquet_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "txt": ["a"]}), tmp_path / "a.parquet")
    assert "no column 'text'; did you mean 'txt'?" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("keep", [5, 40, -9, -1])
def test_a_truncated_gzip_is_refused(tmp_path: Path, keep: int) -> None:
    file = written(tmp_path / "a.csv.gz", "id,text\n" + "".join(f"{n},text {n * n}\n" for n in range(500)))
    file.write_bytes(file.read_bytes()[:keep])
    assert "damaged or cut short" in refusal(file)


def test_a_flipped_byte_in_a_gzip_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv.gz", "id,text\n" + "".join(f"{n},text {n * n}\n" for n in range(500)))
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(data)
    assert "damaged or cut short" in refusal(file)


@pytest.mark.parametrize("keep", [3, 100, -4, -1])
def test_a_truncated_parquet_is_refused(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": list(range(500)), "text": ["x"] * 500}), file)
    file.write_bytes(file.read_bytes()[:keep])
    assert "damaged or not parquet" in refusal(file)


def test_a_file_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_text("id,text\n1,a\n")
    assert "damaged or cut short" in refusal(tmp_path / "a.csv.gz")


def test_lone_surrogates_are_replaced_and_pairs_kept() -> None:
    assert clean("a\ud83db é \U0001f600") == "a\ufffdb é \U0001f600"


def test_bytes_of_a_parquet_file_are_the_texts_that_they_hold(tmp_path: Path) -> None:
    texts = ["café", "naïve"]
    columns = {"text": pa.array([one.encode() for one in texts], pa.binary()), "turns": [[texts[0].encode()], []]}
    pq.write_table(pa.table(columns), file := tmp_path / "a.parquet")
    assert rows(file, ["text", "turns"]) == [
        (1, {"text": "café", "turns": ["café"]}),
        (2, {"text": "naïve", "turns": []}),
    ]
    pq.write_table(pa.table({"text": pa.array([b"\xff\xfe"], pa.binary())}), file)
    assert "row 1 of 'text' holds bytes that are no UTF-8; write texts" in refusal(file, ["text"])


@pytest.mark.parametrize(
    ("name", "given"), [("a.csv.gz", b"id,text\n" + 999 * b"1,abc\n"), ("a.jsonl.gz", 999 * b'{"id":1}\n')]
)
def test_a_file_that_is_cut_short_is_not_counted(tmp_path: Path, name: str, given: bytes) -> None:
    (file := tmp_path / name).write_bytes(gzip.compress(given)[:-12])
    with pytest.raises(DataError, match=r"a\.\w+\.gz: damaged or cut short .*; copy or download it again"):
        count_rows(file)


@pytest.mark.parametrize("missing", ["null", '""', '" "', "NaN"])
@pytest.mark.parametrize("kind", ["table", "pairs", "tokens", "arena"])
def test_a_row_without_an_id_is_refused_where_others_have_one(tmp_path: Path, kind: str, missing: str) -> None:
    words = '"tokens": ["a"], "labels": ["O"], "text": "t", "prompt": "p", "response_a": "a", "response_b": "b"'
    file = written(tmp_path / "a.jsonl", f'{{"id": {missing}, {words}}}\n{{"id": "1", {words}}}\n')
    data = {
        "table": TableData(path="", text_column="text", id_column="id"),
        "pairs": PairsData(path="", id_column="id"),
        "tokens": TokensData(path="", id_column="id"),
        "arena": ArenaData(path=""),
    }[kind]
    with pytest.raises(DataError, match=r"1 row \(line 1\) without a value in 'id'"):
        list(data.read_unlabelled(file, "data.path"))


def test_a_bound_on_the_longest_row_counts_the_test_file(tmp_path: Path) -> None:
    train, test = (written(tmp_path / f"{name}.csv", f"text,label\n{name * 50},x\n") for name in ("a", "long"))
    short = TableData(path=str(train), text_column="text", max_length=512)
    assert longest_row(replace(short, test_path=str(test))) - longest_row(short) == 150
