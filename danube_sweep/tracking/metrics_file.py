"""metrics.csv, the truth about a run: exact, synced row by row, mended after a kill."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.storage.files import appending, write_text
from danube_sweep.storage.leases import fence

MEMORY: Final = "memory_bytes"
"""The GPU's memory in use when the row was written."""
SAMPLED: Final = (MEMORY,)
"""Columns that depend on the machine: a run may continue without them, or with them."""


@final
class MetricsFile:
    """metrics.csv: `step`, `part` and then the metrics, one synced line per row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """`columns` may hold those of SAMPLED, which a file that is continued may lack, and the other way round."""
        if list(columns[:2]) != ["step", "part"]:
            raise ValueError(f"the columns of {path.name} begin with step and part, got {', '.join(columns)}")
        self._path, self._columns, self._header = path, list(columns), ",".join(columns)

    def resume(self, after_step: int) -> str | None:
        """Drops the rows beyond `after_step` and lines that a power cut or a kill has damaged, atomically.

        Returns a note if rows up to `after_step` are lost. Without a file does nothing at step 0. Raises
        CheckpointError for a file with other columns, DiskError if it cannot be written.
        """
        if not self._path.is_file():
            return self._lost(set(), after_step, damaged=0)
        header, *lines = self._path.read_bytes().split(b"\n")
        readable = header.isascii() and b"\0" not in header
        if readable and lines:
            self._adopt(header.decode().split(","))
        if readable and lines and header.decode() != self._header:
            raise CheckpointError(
                f"{self._path} has the columns {header.decode()}, this version writes {self._header}; "
                "move the file away"
            )
        steps = [self._step(line) for line in lines]
        damaged = sum(step is None for step in steps[:-1]) + (not readable)  # the last line is empty or half-written
        kept = [(step, line) for step, line in zip(steps[:-1], lines, strict=False) if step is not None]
        kept = [(step, line) for step, line in kept if step <= after_step]
        write_text(self._path, "\n".join([self._header, *(line.decode() for _, line in kept)]) + "\n")
        trained = {step for step, line in kept if line.split(b",")[1] == b"train"}
        return self._lost(trained, after_step, damaged)

    def append(self, rows: Sequence[Mapping[str, float | int | str | None]]) -> None:
        """Adds whole lines and syncs them; a missing metric is an empty cell, a float comes back bit for bit.

        Raises DiskError, BusyError where another process has taken over the folder, and ValueError for a column or a
        text that does not fit; the file is then as it was.
        """
        fence(self._path)
        text = "".join(self._line(row) for row in rows)
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with appending(self._path) as stream:
                stream.write((text if size else f"{self._header}\n{text}").encode())
                stream.flush()
                os.fsync(stream.fileno())
        except DiskError:
            with suppress(OSError):
                if not self._path.is_symlink():
                    os.truncate(self._path, size)
            raise

    def _adopt(self, columns: list[str]) -> None:
        """Continues with the columns of a file that differs only in SAMPLED columns."""
        if _unsampled(columns) == _unsampled(self._columns):
            self._columns, self._header = columns, ",".join(columns)

    def _lost(self, trained: set[int], after_step: int, damaged: int) -> str | None:
        missing = [step for step in range(1, after_step + 1) if step not in trained]
        lines = f"{damaged} lines of {self._path} are damaged and dropped" if damaged else ""
        if not missing:
            return lines or None
        lost = f"{self._path} lacks the rows of {len(missing)} steps from {missing[0]} to {missing[-1]}"
        return f"{lost}: they are lost, and the rest is kept" + (f"; {lines}" if lines else "")

    def _step(self, line: bytes) -> int | None:
        """The step of a row; None for a line that is no row of this file."""
        step, *cells = line.split(b",")
        if not (line.isascii() and step.isdigit() and len(cells) == len(self._columns) - 1):
            return None
        whole = cells[0] in (b"train", b"validation") and all(map(_is_number, cells[1:]))
        return int(step) if whole else None

    def _line(self, row: Mapping[str, float | int | str | None]) -> str:
        if unknown := [name for name in row if name not in (*self._columns, *SAMPLED)]:
            raise ValueError(f"{', '.join(unknown)}: no such column in {self._path.name}; it has {self._header}")
        return ",".join(_cell(row.get(name)) for name in self._columns) + "\n"


def _unsampled(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in SAMPLED]


def _is_number(cell: bytes) -> bool:
    try:
        return cell == b"" or isinstance(float(cell), float)
    except ValueError:
        return False


def _cell(value: float | int | str | None) -> str:
    match value:
        case float():
            return float.__repr__(value)  # numpy's float64 is a float whose own repr is np.float64(…)
        case int():
            return int.__repr__(value)
        case None | str() if not set(value or "") & set(',"\r\n'):
            return value or ""
    raise ValueError(f"not a cell of metrics.csv: {value!r}; give a number or a text without commas, quotes, newlines")
