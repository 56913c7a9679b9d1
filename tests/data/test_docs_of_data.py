"""docs/data.md shows what `danube-sweep show` prints: each of its blocks is run here over the file that it names."""

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from danube_sweep.cli import main

ARENA = ["prompt", "response_a", "response_b"]
ONE_HOT = ["winner_model_a", "winner_model_b", "winner_tie"]
BLOCKS = re.findall(r"^\$ danube-sweep (show .*?)\n```$", (ROOT / "docs" / "data.md").read_text(), re.S | re.M)


def sentence(number: int) -> str:
    whose, thing, state = number % 3, number // 12 % 2, number % 4
    words = [
        ["my", "the old", "a new"][whose],
        ["card", "loan"][thing],
        ["is lost", "was slow", "is green", "came late"][state],
    ]
    return " ".join(words)


def scores(file: Path) -> None:
    labels = ["0", "1", "2", "0.0", "1.0", "2.0 "]
    file.write_text("text,label\n" + "".join(f"{sentence(n)},{labels[n % 6]}\n" for n in range(24)))


def missing(file: Path) -> None:
    rows = [{"text": sentence(n), "label": float("nan") if n % 7 == 0 else n % 2} for n in range(24)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def languages(file: Path) -> None:
    labels = ["en", "no", "id", "null"]
    file.write_text("text,label\n" + "".join(f"{sentence(n)},{labels[n % 4]}\n" for n in range(24)))


def semicolons(file: Path) -> None:
    file.write_text("text;label\n" + "".join(f"{sentence(n)};{'ab'[n % 2]}\n" for n in range(24)))


def late_null(file: Path) -> None:
    file.write_text("".join(json.dumps({"text": sentence(n) if n != 2100 else None}) + "\n" for n in range(2200)))


def pairs(file: Path) -> None:
    rows = [
        {
            "id": f"{n:06x}",
            **dict(zip(ARENA, map(sentence, (n, n + 1, n + 2)), strict=True)),
            "winner": f"model_{'ab'[n % 2]}",
        }
        for n in range(24)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)


def battles(file: Path, printed: Callable[[list[str | None]], str] = json.dumps) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Id", *ARENA, *ONE_HOT])
        for n in range(24):
            texts = [printed([sentence(n)]), printed([sentence(n + 1)]), printed([sentence(n + 2), None])]
            writer.writerow([10**18 + 7 * n, *texts, *(int(n % 3 == place) for place in range(3))])


def printed_lists(file: Path) -> None:
    battles(file, str)


def entities(file: Path) -> None:
    rows = []
    for n in range(24):
        city = [["Paris"], ["New", "York"], ["Oslo"], ["Lima"], ["Rome"]][n % 5]
        start = [["Flights", "to"], ["I", "live", "in"], ["Is", "it", "hot", "in"]][n % 3]
        labels = [*["O"] * len(start), "B-CITY", *["I-CITY"] * (len(city) - 1), "O"]
        rows.append({"tokens": [*start, *city, f"{n}"], "labels": labels})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


FILES = {
    "scores.csv": scores,
    "missing.jsonl": missing,
    "languages.csv": languages,
    "semicolons.csv": semicolons,
    "late_null.jsonl": late_null,
    "pairs.parquet": pairs,
    "battles.csv": battles,
    "printed_lists.csv": printed_lists,
    "entities.jsonl": entities,
}


def printed(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints whose files are in /data."""
    (name,) = re.findall(r"/data/([\w.]+)", words)
    FILES[name](folder / name)
    main.main([word.replace("/data", str(folder)) for word in shlex.split(words)])
    out, err = capsys.readouterr()
    return (out + err).replace(str(folder), "/data")


@pytest.mark.parametrize("block", BLOCKS, ids=[re.findall(r"/data/([\w.]+)", block)[0] for block in BLOCKS])
def test_a_block_of_the_docs_is_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, _, expected = block.partition("\n")
    assert printed(words, tmp_path, capsys).rstrip("\n") == expected


def test_every_file_is_in_the_docs() -> None:
    assert {name for block in BLOCKS for name in re.findall(r"^.*?/data/([\w.]+)", block)} == set(FILES)
