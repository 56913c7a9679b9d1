"""Outputs: never onto an input or a file of a run, never through a link, onto an older file only if asked."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from drawn import Sketch, write_sweep

from danube_sweep.cli import main
from danube_sweep.errors import DiskError
from danube_sweep.storage.outputs import check_place, refuse_existing
from danube_sweep.storage.ownership import Kind, take_over

KEPT = ROOT / "tests" / "kept"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two trials in the working directory, where a text of the user's lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    return write_sweep(tmp_path / "sweep", [Sketch(["lora.rank=4"]), Sketch(["lora.rank=8"])])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_report_replaces_a_users_file_only_if_asked(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["report", "sweep"], ["watch", "sweep", "--once"]):
        assert main.main([*command, "-o", "mine.html"]) == 2
        assert "-o mine.html exists; give --overwrite to replace it" in said(capsys)
    assert Path("mine.html").read_text() == "mine"
    assert main.main(["report", "sweep", "-o", "mine.html", "--overwrite"]) == 0
    assert Path("mine.html").read_text().startswith("<!doctype html>")
    for _ in range(2):
        assert main.main(["report", "sweep"]) == 0  # its own page is drawn anew at any time
    assert (sweep / "report.html").is_file()


def test_a_report_never_replaces_a_file_of_its_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = next(sweep.glob("001*"))
    for file in (sweep / "sweep.json", trial / "result.json", trial / "log.txt"):
        before = file.read_bytes() if file.exists() else None
        assert main.main(["report", "sweep", "-o", str(file), "--overwrite"]) == 2
        assert "is a file of the " in said(capsys)
        assert (file.read_bytes() if file.exists() else None) == before


def test_a_ranking_is_rewritten_in_a_sweep_and_in_no_other_folder(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for trial in sweep.glob("00*"):  # as Hydra's own launchers leave them: runs and no sweep.json
        shutil.copytree(trial, runs / trial.name, ignore=shutil.ignore_patterns("trial.json"))
    (runs / "ranking.csv").write_text("mine")
    assert main.main(["rank", "runs"]) == 0
    assert "ranking.csv exists; give --overwrite" in " ".join(capsys.readouterr().out.split())
    assert (runs / "ranking.csv").read_text() == "mine"
    assert main.main(["rank", "runs", "--overwrite"]) == 0
    assert (runs / "ranking.csv").read_text().startswith("rank,")
    described = (sweep / "sweep.json").read_text()
    (sweep / "sweep.json").write_text(described.replace('"pruner": {}', '"pruner": {"kind": "none"}'))
    for _ in range(2):
        assert main.main(["rank", "sweep"]) == 0
    assert (sweep / "ranking.csv").read_text().startswith("rank,")


def test_predictions_replace_neither_an_input_nor_an_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(KEPT / "run", "run")
    shutil.copy(KEPT / "rows.csv", "rows.csv")
    before = Path("rows.csv").read_bytes()
    os.link("rows.csv", "again.csv")
    for target in ("rows.csv", "./rows.csv", "again.csv"):
        assert main.main(["predict", "run", "rows.csv", "-o", target, "--overwrite"]) == 2
        assert "is the same file as rows.csv, which is read" in said(capsys)
    Path("out.csv").write_text("mine")
    assert main.main(["predict", "run", "rows.csv", "-o", "out.csv"]) == 2
    assert "-o out.csv exists; give --overwrite to replace it" in said(capsys)
    assert (Path("rows.csv").read_bytes(), Path("out.csv").read_text()) == (before, "mine")


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "out.csv").symlink_to(tmp_path / "mine.csv")
    with pytest.raises(DiskError, match=r"-o .*out\.csv is a symbolic link, which is not written through; give the fi"):
        check_place(tmp_path / "out.csv", "-o")


def test_a_name_of_a_run_is_only_taken_in_a_run(tmp_path: Path) -> None:
    check_place(tmp_path / "predictions.parquet", "--output")
    take_over(tmp_path, Kind.run)
    with pytest.raises(
        DiskError, match=r"predictions\.parquet is a file of the run in .*; choose another place by --ou"
    ):
        check_place(tmp_path / "predictions.parquet", "--output")
    refuse_existing(tmp_path / "notes.csv", "--output", overwrite=False)


NAMES = {
    Kind.run: ("predictions.parquet", "log.txt"),
    Kind.sweep: ("ranking.csv", "ranking.md", "report.html", "oof.parquet", "sweep.json"),
    Kind.checkpoints: ("step-00000001",),
    Kind.ensemble: ("ensemble.json", "oof.parquet", "report.html"),
    Kind.benchmark: ("benchmark.json",),
    Kind.night: ("night.json", "commands.sh", "report.html", "submission.csv"),
    Kind.prediction: ("parts.json",),
}


@pytest.mark.parametrize("kind", Kind)
def test_a_file_of_a_folder_of_ours_is_replaced_by_no_command_but_the_one_that_draws_it(
    tmp_path: Path, kind: Kind
) -> None:
    take_over(tmp_path, kind)
    for name in NAMES[kind]:
        file = tmp_path / name
        file.write_text("mine")
        with pytest.raises(DiskError, match=rf"-o .*{name} is a file of the {kind.value} in "):
            check_place(file, "-o", draws="other.csv")
        with pytest.raises(DiskError, match="exists; give --overwrite"):
            refuse_existing(file, "-o", overwrite=False, draws="other.csv")
        check_place(file, "-o", draws=name)
        refuse_existing(file, "-o", overwrite=False, draws=name)
    (tmp_path / "mine.html").write_text("mine")  # no name of ours, so it is the user's
    with pytest.raises(DiskError, match="exists; give --overwrite"):
        refuse_existing(tmp_path / "mine.html", "-o", overwrite=False, draws="mine.html")


def test_each_command_draws_its_own_file_of_a_sweep_and_no_other(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(KEPT / "run", "run")
    shutil.copy(KEPT / "rows.csv", "rows.csv")
    names = ("ranking.csv", "ranking.md", "report.html", "oof.parquet")
    for name in names:
        (sweep / name).write_text("mine")
    for command in (["predict", "run", "rows.csv"], ["report", "sweep"], ["oof", "sweep"]):
        for name in names:
            if (command[0], name) in (("report", "report.html"), ("oof", "oof.parquet")):
                continue
            assert main.main([*command, "-o", f"sweep/{name}"]) == 2, (command, name)
            assert (sweep / name).read_text() == "mine"
    capsys.readouterr()


def test_an_output_takes_the_leftovers_of_killed_commands_away_unless_it_is_refused(tmp_path: Path) -> None:
    output, left = tmp_path / "out.csv", tmp_path / ".out.csv.4194305-0a1b2c.tmp"  # above every process number
    output.touch()
    left.touch()
    with pytest.raises(DiskError, match="exists; give --overwrite"):
        refuse_existing(output, "-o", overwrite=False)
    assert left.exists()
    refuse_existing(output, "-o", overwrite=True)
    assert not left.exists() and output.exists()
