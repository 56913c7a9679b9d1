"""metrics.csv survives kills and full disks."""

import csv
import resource
from pathlib import Path
from typing import Any

import numpy
import pytest

from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.tracking import MetricsFile

COLUMNS = ["step", "part", "loss", "tokens"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_metrics_come_back_exactly_and_missing_ones_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path, COLUMNS).append([{"step": 1, "part": "train", "loss": 0.1 + 0.2}])
    MetricsFile(path, COLUMNS).append([{"step": 2, "part": "validation", "tokens": 7, "loss": float("nan")}])
    MetricsFile(path, COLUMNS).append([{"step": 3, "part": "train", "loss": numpy.float64(0.5)}])
    first, second, third = rows_of(path)
    assert third["loss"] == "0.5"
    assert float(first["loss"]) == 0.1 + 0.2 and first["tokens"] == ""
    assert second == {"step": "2", "part": "validation", "loss": "nan", "tokens": "7"}


def test_resuming_drops_later_rows_and_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path, COLUMNS)
    metrics.append([{"step": step, "part": "train", "loss": 1 / step} for step in range(1, 9)])
    undisturbed = path.read_bytes()
    with path.open("ab") as stream:
        stream.write("9,tra\N{EURO SIGN}".encode()[:-1])
    metrics.resume(after_step=5)
    assert [row["step"] for row in rows_of(path)] == ["1", "2", "3", "4", "5"]
    metrics.append([{"step": step, "part": "train", "loss": 1 / step} for step in range(6, 9)])
    assert path.read_bytes() == undisturbed
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["metrics.csv"]


@pytest.mark.parametrize("left", [b"", b"step,pa", b"step,part,loss,tokens\n"])
def test_resuming_a_file_killed_at_its_first_line_starts_it_afresh(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(left)
    metrics = MetricsFile(path, COLUMNS)
    metrics.resume(after_step=5)
    metrics.append([{"step": 6, "part": "train"}])
    assert path.read_text() == "step,part,loss,tokens\n6,train,,\n"


def test_resuming_without_a_file_writes_nothing(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.csv", COLUMNS).resume(after_step=0)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("text", ["step,part,f1\n1,train,\n", "step,part,loss,tokens\nx,train,,\n"])
def test_resuming_a_foreign_or_damaged_file_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(CheckpointError, match=r"metrics\.csv"):
        MetricsFile(tmp_path / "metrics.csv", COLUMNS).resume(after_step=3)


@pytest.mark.parametrize("row", [{"step": 1, "accuracy": 0.5}, {"step": 1, "part": "a,b"}, {"step": 1, "part": "a\n"}])
def test_a_row_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        MetricsFile(tmp_path / "metrics.csv", COLUMNS).append([{"step": 1, "part": "train"}, row])
    assert not (tmp_path / "metrics.csv").exists()


def test_columns_begin_with_step_and_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step and part"):
        MetricsFile(tmp_path / "metrics.csv", ["loss"])


def test_a_disk_that_fills_up_leaves_whole_lines_and_one_line_of_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path, COLUMNS)
    metrics.append([{"step": 1, "part": "train"}])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(DiskError, match=r"metrics\.csv cannot be written: .*; free some space") as caught:
            metrics.append([{"step": 2, "part": "train"}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert "\n" not in str(caught.value)
