"""Watching a sweep: its slots, the time left, and the page drawn again and again."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from drawn import BEGAN, Sketch, grid, write_sweep
from filelock import FileLock
from rich.console import Console

from danube_sweep.cli import main
from danube_sweep.report.sweep_progress import standing
from danube_sweep.report.watch import Watch
from danube_sweep.results.trial_results import read_trials

NOW = BEGAN.timestamp() + 1000


def running(path: Path) -> Path:
    """A sweep with four ended trials, one that is 40 % through since a minute, and three that wait."""
    trials = grid(8)
    trials[4].state, trials[4].config = None, {"trainer.max_steps": 40}
    for one in trials[5:]:
        one.state = "waiting"
    sweep = write_sweep(path, trials)
    (present,) = sweep.glob("005_*")
    os.utime(present / "environment.json", (NOW - 60, NOW - 60))
    return present


def shown(watch: Watch, console: Console) -> str:
    console.print(watch.look())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_running_trial_has_a_share_and_a_time_left(tmp_path: Path) -> None:
    present = running(tmp_path / "sweep")
    with FileLock(present / ".lock"):
        here = standing(read_trials(present.parent)[0], NOW, None)
    (one,) = here.running
    assert (one.trial, one.step) == (present.name, 16)
    assert one.share == pytest.approx(0.4)
    assert one.left_s == pytest.approx(90)
    assert (here.ended, here.total, here.is_over) == (4, 8, False)
    assert here.left_s == pytest.approx(90 + 3 * 50.5, abs=1)


def test_epochs_tell_the_share_where_steps_are_open(tmp_path: Path) -> None:
    trial = Sketch(["lora.rank=8"], 0.5, None, config={"trainer.max_steps": None, "trainer.epochs": 2.0})
    sweep = write_sweep(tmp_path / "sweep", [trial])
    (present,) = sweep.glob("001_*")
    with FileLock(present / ".lock"):
        (one,) = standing(read_trials(sweep)[0], NOW, None).running
    assert one.share == pytest.approx(0.5)  # 16 steps are the first of two epochs here


def test_a_search_counts_what_it_has_still_to_draw(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(4))
    here = standing(read_trials(sweep)[0], NOW, 20)
    assert (here.ended, here.total) == (4, 20)
    described = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**described, "search": {"fixed": [], "space": {}}}))
    watch = Watch(sweep, Console(file=io.StringIO(), width=100))
    watch.look()
    assert watch.standing is not None and watch.standing.total == 20


def test_the_table_shows_slots_and_ranking(tmp_path: Path) -> None:
    present = running(tmp_path / "sweep")
    console = Console(file=io.StringIO(), width=120)
    with FileLock(present / ".lock"):
        said = shown(Watch(present.parent, console, clock=lambda: NOW), console)
    assert "4 of 8 ended, 1 running, about 4:0" in said
    assert re.search(r"005_\S+.* 40% +loss 0\.\d{4} +log_loss 0\.\d{4} +1:30 left", said)
    assert "ranked by validation/log_loss" in said


def test_a_trial_that_begins_runs_in_the_table_too(tmp_path: Path) -> None:
    present = running(tmp_path / "sweep")
    watch = Watch(present.parent, Console(file=io.StringIO()), clock=lambda: NOW)

    def in_the_table() -> list[str]:
        watch.look()
        assert watch._ranked is not None
        return [one.state for one in watch._ranked[1].trials]

    assert "running" not in in_the_table()
    with FileLock(present / ".lock"):
        assert in_the_table().count("running") == 1


def test_a_sweep_that_nobody_works_on_says_how_to_go_on(tmp_path: Path) -> None:
    present = running(tmp_path / "sweep")
    console = Console(file=io.StringIO(), width=200)
    said = shown(Watch(present.parent, console, clock=lambda: NOW), console)
    assert f"nothing is training now; continue with: danube-sweep resume {present.parent}" in said


def test_the_ranking_follows_a_trial_that_ends(tmp_path: Path) -> None:
    present = running(tmp_path / "sweep")
    watch = Watch(present.parent, Console(file=io.StringIO(), width=100))
    watch.look()
    (waiting,) = present.parent.glob("006_*")
    (waiting / "result.json").write_text('{"state": "failed", "error": "no luck"}')
    assert "no luck" in shown(watch, Console(file=io.StringIO(), width=100))


def test_the_watch_ends_with_the_sweep_and_leaves_a_page(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(2))
    console = Console(file=io.StringIO(), width=100)
    Watch(sweep, console).follow()
    assert (sweep / "report.html").is_file()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("2 of 2 ended") == 1


def test_a_page_that_cannot_be_written_does_not_end_the_watch(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid(2))
    console = Console(file=io.StringIO(), width=200)
    watch = Watch(sweep, console, output=tmp_path / "no" / "page.html")
    watch.draw()
    assert "cannot be written" in shown(watch, console)


def test_the_command_looks_once_and_refuses_a_pace_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # the folder's name decides where a line would be broken
    present = running(tmp_path / "sweep")
    assert main.main(["watch", "--once", str(present.parent)]) == 0
    assert "report.html drawn at" in capsys.readouterr().out
    assert main.main(["watch", str(present.parent), "--every", "0"]) == 2
    assert "--every must be at least 1 second" in capsys.readouterr().err
