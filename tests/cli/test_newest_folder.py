"""Commands without a folder take the newest one, and print which."""

import os
from pathlib import Path

import pytest
from drawn import grid, write_sweep

from danube_sweep.cli import main
from danube_sweep.cli.newest_folder import or_newest
from danube_sweep.errors import ConfigError
from danube_sweep.storage.ownership import MARKER, Kind, take_over


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(place: str, kind: Kind, begun_s: int) -> Path:
    take_over(Path(place), kind)
    os.utime(Path(place) / MARKER, (begun_s, begun_s))
    return Path(place)


def test_the_newest_of_the_right_kind_is_taken_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    made("multirun/2026-11-23/18-20-00", Kind.sweep, 100)
    mine = made("mine", Kind.sweep, 300)
    run = made("outputs/2026-11-24/08-00-00-3fa2b1c9", Kind.run, 400)
    assert or_newest(None, [Kind.sweep], "rank") == mine
    assert "danube-sweep: note: no folder is given; the newest sweep is mine" in capsys.readouterr().err
    assert or_newest(None, [Kind.sweep, Kind.run], "resume") == run
    assert or_newest(Path("given"), [Kind.sweep], "rank") == Path("given")


def test_report_without_a_folder_draws_the_newest_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write_sweep(Path("first"), grid(4))
    take_over(sweep, Kind.sweep)
    assert main.main(["report"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("first/report.html: 4 trials") and "the newest sweep is first" in err


def test_without_any_folder_the_way_out_is_said() -> None:
    with pytest.raises(
        ConfigError, match=r"there is no sweep in .*, multirun or outputs; give one: danube-sweep watch"
    ):
        or_newest(None, [Kind.sweep], "watch")


def test_a_setting_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["resume", "sweep.slots=2"]) == 2
    assert "no folder is given, and there is no sweep or run" in capsys.readouterr().err
