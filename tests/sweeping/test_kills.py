"""The short form of benchmarks/siege/kills.py, and that its comparison sees what it looks for."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from conftest import ROOT

from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import Attempt, SweepFolder, append_attempt

sys.path.insert(0, str(ROOT / "benchmarks" / "siege"))

import kills

TRIALS, KILLS = 4, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a planned sweep and the same one run undisturbed."""
    folder = tmp_path_factory.mktemp("kills")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(folder / "cache"))
        kills.reference(folder, TRIALS)
        yield folder


def test_kill_9_at_random_moments_loses_repeats_and_changes_nothing(place: Path) -> None:
    rows: list[dict[str, int]] = []
    while (left := KILLS - kills.killed(rows)) and len(rows) < KILLS:  # a sweep may end before its last kill
        rows.append(kills.campaign(place, seed=len(rows), count=2, quota=left))
    assert kills.killed(rows) == KILLS
    assert [{name: row[name] for name in kills.BAD} for row in rows] == [dict.fromkeys(kills.BAD, 0)] * len(rows)


def lose(folder: RunFolder) -> None:
    folder.result.unlink()


def repeat(folder: RunFolder) -> None:
    append_attempt(folder, Attempt("finished", 1.0, "now", "here"))


def change_result(folder: RunFolder) -> None:
    folder.result.write_text(folder.result.read_text().replace('"train_loss": ', '"train_loss": 1'))


def change_predictions(folder: RunFolder) -> None:
    table = parquet.read_table(folder.predictions)
    losses = table["loss"].to_numpy() * (1 + 1e-7)
    parquet.write_table(
        table.set_column(table.column_names.index("loss"), "loss", pa.array(losses.astype("float32"))),
        folder.predictions,
    )


def repeat_row(folder: RunFolder) -> None:
    lines = folder.metrics.read_text().splitlines(keepends=True)
    folder.metrics.write_text("".join([*lines, lines[-1]]))


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lose, "lost"),
        (repeat, "twice"),
        (change_result, "different"),
        (change_predictions, "different"),
        (repeat_row, "different"),
    ],
)
def test_the_comparison_sees_damage(
    place: Path, tmp_path: Path, damage: Callable[[RunFolder], None], seen: str
) -> None:
    copy = SweepFolder(Path(shutil.copytree(place / "undisturbed", tmp_path / "copy")))
    assert kills.compare(copy.path, place / "undisturbed")["attempts"] == TRIALS
    damage(copy.entries()[2].folder)
    counts = kills.compare(copy.path, place / "undisturbed")
    assert {name: counts[name] for name in ("lost", "twice", "different") if counts[name]} == {seen: 1}
