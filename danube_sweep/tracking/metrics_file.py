"""metrics.csv, the truth about a run: exact, synced row by row, mended after a kill."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.storage.files import appending, write_text


@final
class MetricsFile:
    """metrics.csv: `step`, `part` and then the metrics, one synced line per row."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        if list(columns[:2]) != ["step", "part"]:
            raise ValueError(f"the columns of {path.name} begin with step and part, got {', '.join(columns)}")
        self._path, self._columns, self._header = path, list(columns), ",".join(columns)

    def resume(self, after_step: int) -> None:
        """Drops the rows beyond `after_step` and a half-written last line, atomically; without a file does nothing.

        Raises CheckpointError for a file with other columns or a damaged row, DiskError if it cannot be written.
        """
        if not self._path.is_file():
            return
        whole, newline, _ = self._path.read_bytes().rpartition(b"\n")
        header, *rows = whole.decode(errors="replace").split("\n") if newline else [self._header]
        if header != self._header:
            raise CheckpointError(
                f"{self._path} has the columns {header}, this version writes {self._header}; move the file away"
            )
        write_text(self._path, "\n".join([header, *(row for row in rows if self._step(row) <= after_step)]) + "\n")

    def append(self, rows: Sequence[Mapping[str, float | int | str | None]]) -> None:
        """Adds whole lines and syncs them; a missing metric is an empty cell, a float comes back bit for bit.

        Raises DiskError, and ValueError for a column or a text that does not fit; the file is then as it was.
        """
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

    def _step(self, row: str) -> int:
        step = row.split(",")[0]
        if not step.isdecimal() or row.count(",") != len(self._columns) - 1:
            raise CheckpointError(f"{self._path} has a damaged line, {row[:80]!r}; remove it to go on")
        return int(step)

    def _line(self, row: Mapping[str, float | int | str | None]) -> str:
        if unknown := [name for name in row if name not in self._columns]:
            raise ValueError(f"{', '.join(unknown)}: no such column in {self._path.name}; it has {self._header}")
        return ",".join(_cell(row.get(name)) for name in self._columns) + "\n"


def _cell(value: float | int | str | None) -> str:
    match value:
        case float():
            return float.__repr__(value)  # numpy's float64 is a float whose own repr is np.float64(…)
        case int():
            return int.__repr__(value)
        case None | str() if not set(value or "") & set(',"\r\n'):
            return value or ""
    raise ValueError(f"not a cell of metrics.csv: {value!r}; give a number or a text without commas, quotes, newlines")
