"""Files that trials of a sweep have in common are on the disk once, and each trial's folder is whole."""

import os
from pathlib import Path

import pytest

from danube_sweep.storage.shared_files import FOLDER, LEAST_BYTES, remove_left_over_copies, share

CONTENT = "t" * LEAST_BYTES


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(CONTENT)
        (tmp_path / name / "config.json").write_text("{}")
    return tmp_path


def shared(sweep: Path, name: str) -> Path:
    share((sweep / name).iterdir(), sweep)
    return sweep / name / "tokenizer.json"


def test_equal_files_are_one_and_others_and_small_ones_are_not(sweep: Path) -> None:
    (sweep / "c" / "tokenizer.json").write_text(CONTENT[1:] + "u")
    first, second, other = (shared(sweep, name) for name in "abc")
    assert first.samefile(second) and first.read_text() == CONTENT and not first.is_symlink()
    assert not other.samefile(first) and other.read_text().endswith("u")
    assert len(list((sweep / FOLDER).iterdir())) == 2
    assert (sweep / "a" / "config.json").stat().st_nlink == 1


def test_a_damaged_copy_is_replaced_and_spoils_no_other_trial(sweep: Path) -> None:
    shared(sweep, "a")
    (kept,) = (sweep / FOLDER).iterdir()
    kept.unlink()
    kept.write_text("cut")
    assert shared(sweep, "b").read_text() == CONTENT == kept.read_text()
    assert shared(sweep, "c").samefile(kept)


def test_a_store_that_is_a_link_or_a_file_is_not_used(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (sweep / FOLDER).symlink_to(elsewhere)
    assert shared(sweep, "a").stat().st_nlink == 1 and not list(elsewhere.iterdir())
    (sweep / FOLDER).unlink()
    (sweep / FOLDER).write_text("")
    assert shared(sweep, "a").read_text() == CONTENT


def test_what_a_killed_process_left_half_shared_is_removed_and_nothing_else(sweep: Path) -> None:
    shared(sweep, "a")
    copy, store = next((sweep / FOLDER).iterdir()).name, sweep / FOLDER
    for name in (f".{copy}.999999999-0a1b2c.tmp", f".{copy}.{os.getpid()}-0a1b2c.tmp", ".mine.999999999.tmp"):
        (store / name).write_text("x")
    remove_left_over_copies(sweep)
    assert {path.name for path in store.iterdir()} == {copy, f".{copy}.{os.getpid()}-0a1b2c.tmp", ".mine.999999999.tmp"}
