"""Rows of csv, tsv, jsonl, json and parquet files: a damaged file is an error with a line, never fewer rows."""

import csv
import difflib
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.data.python_lists import python_list
from danube_sweep.errors import DataError

Row = tuple[int, dict[str, Any]]

_KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_LONGEST_FIELD = 2**31 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(path: str | Path, columns: Sequence[str], field: str = "data.path") -> Iterator[Row]:
    """The rows of a file that has at least `columns`, one at a time, each with the line it starts in.

    For parquet and json the number is the row's, from 1. Values of csv are unchanged strings ("NA" stays "NA").
    Raises DataError, in one line with `field`, file and line, for anything missing, malformed or cut short.
    """
    where = f"{field}={path}"
    file = Path(path).expanduser()
    kind = _kind(file, where)
    with _undamaged(where):
        if file.stat().st_size == 0:
            raise _empty(where, columns)
        match kind:
            case "csv":
                yield from _csv_rows(file, columns, where)
            case "jsonl":
                yield from _jsonl_rows(file, columns, where)
            case "json":
                yield from _json_rows(file, columns, where)
            case _:
                yield from _parquet_rows(file, columns, where)


def rows_with_groups(
    path: str | Path,
    columns: Sequence[str],
    group_column: str | None,
    field: str = "data.path",
    read: "Callable[[str | Path, Sequence[str], str], Iterator[Row]]" = read_rows,
) -> list[Row]:
    """All rows, with the column of their groups if there is one. Raises DataError, also for rows without a group."""
    if group_column is None:
        return list(read(path, columns, field))
    rows = list(read(path, [*columns, group_column], field))
    lost = [line for line, row in rows if as_text(row[group_column]).strip() in ("", "NaN")]
    refuse_missing(f"{field}={path}", group_column, lost)
    return rows


def refuse_missing(where: str, column: str, lines: Sequence[int]) -> None:
    """Raises DataError if there are lines without a value in a column."""
    if lines:
        raise DataError(f"{where}: {some_lines(lines)} without a value in {column!r}; fill it in or drop the row")


def row_id(numbered: Row, column: str | None, place: int, where: str) -> str:
    """The id of a row: that of its column, or `place` where there is no such column. Raises DataError without a value.

    A number in its place could be another row's id.
    """
    if column is None:
        return str(place)
    line, row = numbered
    found = as_text(row[column])
    refuse_missing(where, column, [line] if found.strip() in ("", "NaN") else [])
    return found


def count_rows(file: Path) -> int:
    """The rows of a file, nothing in them checked. Raises DataError for one that is damaged, or of another kind."""
    where = f"data.path={file}"
    kind = _kind(file, where)
    with _undamaged(where):
        match kind:
            case "parquet":
                import pyarrow
                from pyarrow import parquet

                try:
                    return int(parquet.read_metadata(file).num_rows)
                except pyarrow.ArrowException as error:
                    raise _no_parquet(where, error) from error
            case "jsonl":
                with _open(file, newline="") as text:
                    return sum(1 for line in text if line.strip())
            case "json":
                return sum(1 for _ in _json_rows(file, [], where))
            case _:
                csv.field_size_limit(_LONGEST_FIELD)
                with _open(file, newline="") as text:
                    return max(0, sum(1 for _ in csv.reader(text, delimiter=_delimiter(file))) - 1)


@contextmanager
def _undamaged(where: str) -> Iterator[None]:
    """Raises DataError for a compressed file that is cut short and for a disk that does not answer."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: damaged or cut short ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error}); check the file") from error


def _no_parquet(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: damaged or not parquet ({' '.join(str(error).split())}); write or download it again")


def clean(text: str) -> str:
    r"""The text with lone surrogates (JSON's `\ud83d` without its second half) replaced by U+FFFD.

    They can be neither tokenised nor written as UTF-8.
    """
    return text if text.isascii() else _LONE_SURROGATE.sub("�", text)


def as_text(value: Any) -> str:
    """A cell as text: strings unchanged, null as "", dates and the like as they print, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float | list | dict):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    return clean(str(value))


def as_list(value: Any) -> list[Any] | None:
    """A cell as a list, including JSON or Python notation in a csv; None if it is not a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return python_list(value)
    return value if isinstance(value, list) else None


def is_printed_list(value: Any) -> bool:
    """Whether a cell is a list as Python prints it, and no JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return False
    try:
        json.loads(value, strict=False)
    except (ValueError, RecursionError):
        return python_list(value) is not None
    return False


def printed_lists_note(where: str, lines: Sequence[int]) -> list[str]:
    """A line about lists in these lines that Python printed, or none."""
    return [f"{where}: lists in Python's notation, read as lists, in {some_lines(lines)}"] if lines else []


def some_lines(lines: Sequence[int]) -> str:
    """`1 row (line 7)`, `12 rows (lines 2, 5, 6, 9, 11, …)`: which rows an error is about."""
    shown = ", ".join(str(line) for line in lines[:5])
    plural = "s" if len(lines) > 1 else ""
    return f"{len(lines)} row{plural} (line{plural} {shown}{', …' if len(lines) > 5 else ''})"


def _kind(file: Path, where: str) -> str:
    if file.is_dir():
        raise DataError(f"{where}: a folder, not a file; give one file in it")
    if not file.exists():
        raise DataError(f"{where}: no such file (looked in {Path.cwd()})")
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    zipped = suffixes[-1:] == [".gz"]
    kind = _KINDS.get(suffixes[0] if zipped and len(suffixes) == 2 else suffixes[-1] if suffixes else "")
    if suffixes[-1:] == [".zip"]:
        raise DataError(f"{where}: a zip archive{_members(file)}; unpack it and give the file in it")
    if suffixes[-1:] in ([".xlsx"], [".xls"], [".xlsm"], [".ods"]):
        raise DataError(f"{where}: a workbook of a spreadsheet; save its sheet as CSV UTF-8, and give that file")
    if kind is None or (zipped and kind == "parquet"):
        raise DataError(
            f"{where}: its name must end in .csv, .tsv, .jsonl, .ndjson, .json (each also with .gz) or .parquet"
        )
    return kind


def _empty(where: str, columns: Sequence[str]) -> DataError:
    wanted = f"the columns {', '.join(columns)}" if columns else "a header and rows"
    return DataError(f"{where}: the file is empty; give one with {wanted}")


def _members(file: Path) -> str:
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        return f" of {', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''}" if names else ""
    return ""


def _delimiter(file: Path) -> str:
    return "\t" if ".tsv" in [suffix.lower() for suffix in file.suffixes[-2:]] else ","


def _open(file: Path, newline: str) -> IO[str]:
    open_text: Callable[..., IO[str]] = gzip.open if file.suffix.lower() == ".gz" else open
    # Bytes that are not UTF-8 come through as surrogates, which UTF-8 itself never gives: so their line is known.
    return open_text(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _lines(text: IO[str], where: str) -> Iterator[str]:
    for number, line in enumerate(text, 1):
        if not line.isascii() and _LONE_SURROGATE.search(line):
            raise DataError(f"{where}, line {number}: not UTF-8; save the file as UTF-8")
        if "\0" in line:
            raise DataError(f"{where}, line {number}: a NUL byte; the file is damaged or not text, save it as UTF-8")
        yield line


def _csv_rows(file: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    with _open(file, newline="") as text:
        rows = _csv_records(_lines(text, where), where, _delimiter(file))
        header = next(rows, None)
        if header is None:
            raise _empty(where, columns)
        names = _as_asked(header[1], columns)
        if len(names) == 1 and any(name not in names for name in columns):
            refuse_separator(names[0], f"{where}, line {header[0]}")
        check_columns(names, columns, f"{where}, line {header[0]}")
        for line, row in rows:
            if len(row) != len(names):
                raise DataError(
                    f"{where}, line {line}: {len(row)} fields, but the header has {len(names)}; "
                    "quote texts that hold commas or line breaks"
                )
            yield line, dict(zip(names, row, strict=True))


def _as_asked(names: list[str], columns: Sequence[str]) -> list[str]:
    """The header, with a column that is asked for under its own name where a csv of ours spells it otherwise."""
    spelled = {neutral_cell(name): name for name in columns if name not in names}
    return [spelled.get(name, name) for name in names]


def refuse_separator(header: str, where: str) -> None:
    """Raises DataError for a header that something else separates than the file's name says."""
    for sign, name in {**_SEPARATORS, ",": "commas"}.items():
        if sign in header:
            ways = {"\t": "name it .tsv", ",": "name it .csv"}
            way_out = ways.get(sign, "save it with commas, or with tabs as .tsv")
            raise DataError(f"{where}: separated by {name}: {header[:80]!r}; {way_out}")


def _csv_records(lines: Iterable[str], where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            way_out = "close the quote, and double the quotes inside a quoted text"
            if "unexpected end of data" in str(error):
                raise DataError(
                    f"{where}, line {start}: a quote opened in this row is never closed; {way_out}"
                ) from error
            raise DataError(f"{where}, line {start}: {error} (seen in line {reader.line_num}); {way_out}") from error
        if row:
            yield start, row


def _jsonl_rows(file: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    found = False
    with _open(file, newline="\n") as text:
        for number, line in enumerate(_lines(text, where), 1):
            if not line.strip():
                continue
            found = True
            here = f"{where}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{here}: not valid JSON ({error}); each line must be one JSON object") from error
            if not isinstance(row, dict):
                raise DataError(f"{here}: a JSON {type(row).__name__}; each line must be one JSON object")
            if any(name not in row for name in columns):
                check_columns(list(row), columns, here)
            yield number, row
    if not found:
        raise _empty(where, columns)


def _json_rows(file: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    with _open(file, newline="\n") as text:
        try:
            rows = json.loads("".join(_lines(text, where)))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({error}); it must be one list of objects") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{where}: it must be a JSON list of objects, one per row; for one object per line, name the file .jsonl"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{where}, row {number}: a JSON {type(row).__name__}; each row must be an object")
        if any(name not in row for name in columns):
            check_columns(list(row), columns, f"{where}, row {number}")
        yield number, row


def _parquet_rows(file: Path, columns: Sequence[str], where: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            check_columns(table.schema_arrow.names, columns, where)
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _decoded(value, name, number, where) for name, value in row.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _no_parquet(where, error) from error


def _decoded(value: Any, column: str, number: int, where: str) -> Any:
    """Bytes, also in a list, as the text that they hold: a column of texts may be one of bytes to the file."""
    if isinstance(value, list):
        return [_decoded(one, column, number, where) for one in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: row {number} of {column!r} holds bytes that are no UTF-8; write texts") from error


def check_columns(there: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Raises DataError if a column is missing or there twice."""
    twice = sorted({name for name in there if there.count(name) > 1})
    if twice:
        raise DataError(f"{where}: the column {twice[0]!r} occurs twice; rename one")
    missing = [name for name in columns if name not in there]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0], there, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(repr(name) for name in missing)
    shown = ", ".join(repr(name[:60]) for name in there[:20]) + (", …" if len(there) > 20 else "")
    raise DataError(f"{where}: no column {listed}; {hint}it has {shown or 'none'}")
