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


@pytest.mark.parametrize("sampled_before", [True, False])
def test_a_run_goes_on_where_memory_is_sampled_or_no_longer_is(tmp_path: Path, sampled_before: bool) -> None:
    path, sampled = tmp_path / "metrics.csv", [*COLUMNS, "memory_bytes"]
    before, after = (sampled, COLUMNS) if sampled_before else (COLUMNS, sampled)
    row = {"step": 1, "part": "train", "loss": 0.5, "tokens": 7, "memory_bytes": 9}
    MetricsFile(path, before).append([row])
    metrics = MetricsFile(path, after)
    metrics.resume(after_step=1)
    metrics.append([{**row, "step": 2}])
    assert path.read_text().splitlines()[0] == ",".join(before)
    assert rows_of(path)[1] == {**{name: str(row[name]) for name in before}, "step": "2"}


def test_resuming_without_a_file_writes_nothing(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.csv", COLUMNS).resume(after_step=0)
    assert not (tmp_path / "metrics.csv").exists()


def test_resuming_a_file_with_other_columns_names_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,part,f1\n1,train,\n")
    with pytest.raises(CheckpointError, match=r"metrics\.csv has the columns step,part,f1"):
        MetricsFile(tmp_path / "metrics.csv", COLUMNS).resume(after_step=3)


def damaged(path: Path, start: int, end: int, with_: bytes = b"\0") -> MetricsFile:
    """A file of the steps 1 to 8 and a validation; the bytes of lines `start` to `end` are overwritten."""
    metrics = MetricsFile(path, COLUMNS)
    metrics.append([{"step": step, "part": "train", "loss": 1 / step} for step in range(1, 9)])
    metrics.append([{"step": 8, "part": "validation", "loss": 0.5}])
    lines = path.read_bytes().splitlines(keepends=True)
    lost = b"".join(lines[start:end])
    path.write_bytes(b"".join(lines[:start]) + with_ * len(lost) + b"".join(lines[end:]))
    return metrics


def test_a_tail_of_nuls_costs_its_rows_and_the_loss_is_said(tmp_path: Path) -> None:
    metrics = damaged(tmp_path / "metrics.csv", 6, 10)
    assert metrics.resume(after_step=8) == (
        f"{tmp_path / 'metrics.csv'} lacks the rows of 3 steps from 6 to 8: they are lost, and the rest is kept"
    )
    assert [row["step"] for row in rows_of(tmp_path / "metrics.csv")] == ["1", "2", "3", "4", "5"]
    metrics.append([{"step": 9, "part": "train"}])
    assert metrics.resume(after_step=5) is None  # from there the rows are whole


@pytest.mark.parametrize("with_", [b"\0", b"\xff", b"7", b"\n"])
def test_damage_in_the_middle_costs_its_rows_alone(tmp_path: Path, with_: bytes) -> None:
    note = damaged(tmp_path / "metrics.csv", 3, 5, with_).resume(after_step=8)
    assert note is not None and "\n" not in note
    lost = {row["step"] for row in rows_of(tmp_path / "metrics.csv")} ^ set("12345678")
    assert lost == ({"3", "4"} if with_ == b"\n" else {"3", "4", "5"})  # else the damage joins the next line
    assert f"lacks the rows of {len(lost)} steps from 3 to {max(lost)}" in note


def test_a_file_of_nuls_is_begun_anew_and_said(tmp_path: Path) -> None:
    metrics = damaged(tmp_path / "metrics.csv", 0, 10)
    assert "lacks the rows of 8 steps from 1 to 8" in str(metrics.resume(after_step=8))
    assert (tmp_path / "metrics.csv").read_text() == "step,part,loss,tokens\n"


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    assert "lacks the rows of 3 steps" in str(MetricsFile(tmp_path / "metrics.csv", COLUMNS).resume(after_step=3))


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
