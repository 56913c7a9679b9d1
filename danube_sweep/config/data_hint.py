"""Which kind of data a file suits, by its columns: for a path that is given without one."""

import csv
import gzip
from pathlib import Path
from typing import IO, Final

from danube_sweep.config.options import OPTIONS
from danube_sweep.decoding import json_from

LONGEST_CHARACTERS: Final = 2**20
"""A first line that is longer is not looked at."""

SUITED: Final = [
    ({"prompt", "response_a", "response_b", "winner"}, "data=pairs"),
    ({"prompt", "response_a", "response_b"}, "data=arena"),
    ({"tokens", "labels"}, "data=tokens head=token"),
    ({"text", "label"}, "data=table head=sequence"),
    ({"text"}, "data=text head=lm"),
]
"""The columns that a kind of data reads by default, most of them first, and how to choose it."""


def which_data(path: str | None) -> str:
    """The overrides for a file, in a clause; `path` as given, or None if unknown."""
    kinds = ", ".join(f"data={name}" for name in OPTIONS["data"] if name != "generated")
    columns = _columns(Path(path).expanduser()) if path else []
    if not columns:
        return f"data=generated reads no file; choose a kind of data: {kinds}, like data=table head=sequence"
    printed = ["".join(sign for sign in name[:40] if sign.isprintable()) for name in columns[:8]]
    shown = ", ".join(printed) + (", …" if len(columns) > 8 else "")
    fits = next((words for wanted, words in SUITED if wanted <= set(columns)), None)
    named = "data=table head=sequence data.text_column=… data.label_column=…"
    words = f"{fits or named} data.path={path}"
    return f"data=generated reads no file; for its columns ({shown}) write {words}; there are {kinds}"


def _columns(file: Path) -> list[str]:
    """The names of a file's columns; none for a file that cannot be read so."""
    suffix = file.with_suffix("").suffix if file.suffix.lower() == ".gz" else file.suffix
    try:
        match suffix.lower():
            case ".csv" | ".tsv":
                with _opened(file) as text:
                    first = text.readline(LONGEST_CHARACTERS)
                return next(csv.reader([first], delimiter="\t" if suffix.lower() == ".tsv" else ","), [])
            case ".jsonl" | ".ndjson":
                with _opened(file) as text:
                    return list(dict(json_from(text.readline(LONGEST_CHARACTERS))))
            case ".parquet":
                import pyarrow.parquet as pq

                return list(pq.read_schema(file).names)
    except (OSError, EOFError, ValueError, TypeError, csv.Error, RecursionError):
        pass
    return []


def _opened(file: Path) -> IO[str]:
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig")
    return file.open(encoding="utf-8-sig")
