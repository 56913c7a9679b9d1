"""Only folders of ours are written to, only names of ours are removed, and nothing is written through a link."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from runs import train

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config
from danube_sweep.errors import CheckpointError, DiskError
from danube_sweep.storage.checkpoints_by_step import Checkpoints
from danube_sweep.storage.files import appending
from danube_sweep.storage.ownership import (
    MARKER,
    Kind,
    check,
    give_back,
    is_our_name,
    is_ours,
    remove_files,
    take_over,
)
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.propose.next_trial import FolderSource

KEPT = ROOT / "tests" / "kept"
Tiny = Callable[..., Config]


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and its text."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, whose names are those of a run."""
    folder = tmp_path / "project"
    (folder / "checkpoints" / "my-other-run").mkdir(parents=True)
    (folder / "adapter").mkdir()
    for name in ("checkpoints/my-other-run/weights", "adapter/weights", "predictions.parquet", "config.yaml"):
        (folder / name).write_text("mine")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("where", [["hydra.run.dir=."], ["-m", "seed=0,1", "hydra.sweep.dir=."]])
def test_a_folder_with_a_users_files_is_refused_in_one_line_and_left_as_it_was(
    project: Path, capsys: pytest.CaptureFixture[str], where: list[str]
) -> None:
    before = tree(project)
    assert main.main([*where, "data.rows=60", *TINY]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "holds files that danube-sweep did not write (adapter, checkpoints, config.yaml and 1 more)" in said
    assert "give a new or empty folder by hydra." in said
    assert tree(project) == before


def test_a_users_folder_is_not_resumed(project: Path, tiny: Tiny) -> None:
    before = tree(project)
    with pytest.raises(CheckpointError, match=r"give a new or empty folder by hydra\.run\.dir"):
        train(tiny(), project)
    assert tree(project) == before


@pytest.mark.parametrize("kind", list(Kind))
def test_an_empty_folder_becomes_ours_and_stays_ours_with_whatever_comes_in(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "new" / "one"
    take_over(folder, kind)
    (folder / "notes.txt").write_text("mine")
    check(folder, kind)
    take_over(folder, kind)
    assert is_ours(folder, kind) and json.loads((folder / MARKER).read_text())["kind"] == kind.value


def test_hidden_files_and_the_lock_of_a_process_that_was_faster_are_no_content(tmp_path: Path) -> None:
    for name in (".DS_Store", ".lock", ".config.yaml.12-abcdef.tmp"):
        (tmp_path / name).touch()
    check(tmp_path, Kind.run)
    (tmp_path / ".lock").write_text("a word processor's")
    with pytest.raises(CheckpointError, match=r"\(\.lock\)"):
        check(tmp_path, Kind.run)


def test_the_folder_of_a_sweep_takes_no_run_and_that_of_a_run_no_sweep(tmp_path: Path) -> None:
    take_over(tmp_path, Kind.sweep)
    with pytest.raises(CheckpointError, match=r"is the folder of a sweep; .* by hydra\.run\.dir"):
        check(tmp_path, Kind.run)


def test_a_marker_that_a_power_cut_has_emptied_is_a_marker(tmp_path: Path) -> None:
    take_over(tmp_path, Kind.run)
    (tmp_path / MARKER).write_bytes(b"\0" * 40)
    (tmp_path / "notes.txt").write_text("mine")
    check(tmp_path, Kind.run)


def test_a_marker_goes_from_a_folder_that_stayed_empty_and_from_no_other(tmp_path: Path) -> None:
    for name in ("empty", "used"):
        take_over(tmp_path / name, Kind.run)
    (tmp_path / "used" / "notes.txt").write_text("mine")
    give_back(tmp_path / "empty")
    give_back(tmp_path / "used")
    assert os.listdir(tmp_path / "empty") == [] and len(os.listdir(tmp_path / "used")) == 2


# -------------------------------------------------------------------------------------------- folders of version 0.1


def trials(sweep: Path) -> list[Path]:
    return sorted(sweep.glob("00*"))


def test_folders_of_version_0_1_are_known_by_their_files_and_get_the_marker(tmp_path: Path) -> None:
    kept = Path(shutil.copytree(KEPT, tmp_path / "kept"))
    for folder in (kept / "run", kept / "stopped", *trials(kept / "sweep")):
        take_over(folder, Kind.run)
        assert (folder / MARKER).is_file()
    with SweepFolder(kept / "sweep").locked():
        assert (kept / "sweep" / MARKER).is_file()


def test_a_trial_of_version_0_1_is_known_whichever_of_its_files_is_damaged(tmp_path: Path) -> None:
    sweep = Path(shutil.copytree(KEPT / "sweep", tmp_path / "sweep"))
    for number, trial in enumerate(trials(sweep)):
        (trial / "trial.json").write_text("{" * number)
        (trial / "environment.json").write_text("[]")
        check(trial, Kind.run)
    (sweep / "sweep.json").unlink()
    with pytest.raises(CheckpointError, match="did not write"):  # nothing is left that tells
        check(sweep, Kind.sweep)


# -------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("name", ["log.txt", "checkpoints", "metrics.csv", "adapter", "result.json", MARKER])
def test_no_name_of_ours_in_a_run_folder_may_be_a_link(tiny: Tiny, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "step-00000005").write_text("mine")
    take_over(tmp_path / "run", Kind.run)
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{name} is a symbolic link, which is not written through"):
        train(tiny(), tmp_path / "run")
    assert tree(elsewhere) == {"step-00000005": "mine"}


def test_a_linked_trial_is_read_and_neither_trained_nor_added_to(tiny: Tiny, tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path / "sweep")
    with sweep.locked():
        sweep.add([(tiny(f"seed={seed}"), [f"seed={seed}"], None) for seed in (1, 2)])
    second = sweep.entries()[1].path
    second.rename(tmp_path / "elsewhere")
    second.symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    source = FolderSource(sweep)
    first = source.claim()
    assert first is not None and first.entry.number == 1 and source.claim() is None
    assert source.notes == [f"{second.name} is left out: it is a symbolic link, which is not written through"]
    assert [entry.number for entry in FolderSource(sweep).batch(2)] == [1]
    assert tree(tmp_path / "elsewhere") == before
    first.release()
    sweep._path(3, ["seed=3"], [], trial_hash(tiny("seed=3"))).symlink_to(tmp_path / "elsewhere")
    with (
        sweep.locked(),
        pytest.raises(CheckpointError, match=r"_seed-3_.* is a symbolic link, which is not written thr"),
    ):
        sweep.add([(tiny("seed=3"), ["seed=3"], None)])
    assert tree(tmp_path / "elsewhere") == before


def test_the_way_out_for_checkpoints_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to("/tmp")
    with pytest.raises(CheckpointError, match=r"give storage\.checkpoints=FOLDER"):
        check(tmp_path, Kind.run)


def test_a_link_of_the_users_own_and_a_linked_run_folder_are_fine(tmp_path: Path) -> None:
    take_over(tmp_path / "run", Kind.run)
    (tmp_path / "run" / "notes").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    check(tmp_path / "linked", Kind.run)


def test_a_file_is_not_added_to_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "log.txt").symlink_to(tmp_path / "mine")
    with (
        pytest.raises(DiskError, match=r"log\.txt cannot be written: it is a symbolic link, which is not written thr"),
        appending(tmp_path / "log.txt"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


# -------------------------------------------------------------------------------------------------- names and removal


def test_every_file_of_a_run_and_of_a_sweep_is_a_name_of_ours() -> None:
    run, sweep = RunFolder(Path("here")), SweepFolder(Path("here"))
    paths = {name for name, value in vars(RunFolder).items() if isinstance(value, property)} - {"has_checkpoints"}
    assert {name for name in paths if not is_our_name(getattr(run, name).name, Kind.run)} == set()
    paths = {name for name, value in vars(SweepFolder).items() if isinstance(value, property)}
    assert {name for name in paths if not is_our_name(getattr(sweep, name).name, Kind.sweep)} == set()


def test_only_checkpoints_of_ours_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    for folder in ("my-other-run", "step-5", "step-00000005", ".step-00000006.12-abcdef.tmp", ".other.12-abcdef.tmp"):
        (root / folder).mkdir(parents=True)
        (root / folder / "weights").write_text("some")
    shutil.copytree(root / "my-other-run", elsewhere)
    (root / "step-00000007").symlink_to(elsewhere)
    Checkpoints(root).clear()
    assert sorted(os.listdir(root)) == [".other.12-abcdef.tmp", "my-other-run", "step-00000007", "step-5"]
    assert tree(elsewhere) == {"weights": "some"}
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    (root / "step-00000008").mkdir()
    Checkpoints(linked).clear()
    assert (root / "step-00000008").is_dir()


def test_a_users_file_in_a_folder_of_ours_outlives_our_files(tmp_path: Path) -> None:
    take_over(tmp_path / "trial", Kind.run)
    for name in ("config.yaml", "result.json", "notes.txt"):
        (tmp_path / "trial" / name).write_text("text")
    remove_files(tmp_path / "trial", Kind.run)
    assert os.listdir(tmp_path / "trial") == ["notes.txt"]
    (tmp_path / "trial" / "notes.txt").unlink()
    take_over(tmp_path / "trial", Kind.run)
    remove_files(tmp_path / "trial", Kind.run)
    assert not (tmp_path / "trial").exists()
