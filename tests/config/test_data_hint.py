"""A path without a kind of data: the line says which kinds there are and which one suits the file's columns."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danube_sweep.composer import compose
from danube_sweep.config.data_hint import which_data
from danube_sweep.errors import ConfigError

ARENA = "id,prompt,response_a,response_b"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\n", "data=table head=sequence"),
        ("a.tsv", "text\tlabel\n", "data=table head=sequence"),
        ("a.csv", f"{ARENA},winner_model_a,winner_model_b,winner_tie\n", "data=arena"),
        ("a.csv", f"{ARENA},winner\n", "data=pairs"),
        ("a.jsonl", '{"tokens": ["x"], "labels": ["O"]}\n', "data=tokens head=token"),
        ("a.jsonl", '{"text": "x", "id": 3}\n', "data=text head=lm"),
        ("a.csv", "review,stars\n", "data=table head=sequence data.text_column=… data.label_column=…"),
    ],
)
def test_the_columns_of_a_file_say_which_kind_it_suits(tmp_path: Path, name: str, content: str, words: str) -> None:
    file, zipped = tmp_path / name, tmp_path / f"{name}.gz"
    file.write_text(content)
    zipped.write_bytes(gzip.compress(content.encode()))
    for path in (file, zipped):
        assert f" write {words} data.path={path};" in which_data(str(path))
        assert which_data(str(path)).endswith(
            "there are data=arena, data=hub, data=pairs, data=table, data=text, data=tokens"
        )


def test_parquet_has_columns_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    assert "(text, label) write data=table" in which_data(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]\n", b"[" * 100_000])
def test_a_file_that_cannot_be_looked_into_only_names_the_kinds(tmp_path: Path, content: bytes) -> None:
    for name in ("a.jsonl", "a.parquet", "a.csv.gz", "a.txt"):
        (tmp_path / name).write_bytes(content)
        assert "choose a kind of data: data=arena, data=hub" in which_data(str(tmp_path / name))
    assert which_data(str(tmp_path / "none.csv")) == which_data(None)


def test_a_path_alone_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\x1b[2J\n")
    with pytest.raises(ConfigError) as caught:
        compose([f"data.path={tmp_path / 'a.csv'}"])
    message = str(caught.value)
    assert message.startswith(
        "data.path: no such field; data=generated reads no file; for its columns (text, label[2J)"
    )
    with pytest.raises(ConfigError, match=r"data\.validation_path: .*data=generated reads no file; choose a kind"):
        compose(["data.validation_path=b.csv"])
