"""The folder of a run."""

from pathlib import Path

import pytest

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import write_json
from danube_sweep.storage.run_folder import RunFolder, interrupted_run, number_at


def test_an_interrupted_run_has_no_result_and_an_ended_one_has(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_result() is None
    write_json(folder.result, {"state": "finished", "name": "Donau, größte"})
    assert folder.read_result() == {"state": "finished", "name": "Donau, größte"}
    folder.result.write_text('{"state": "fin')
    with pytest.raises(CheckpointError, match=r"result\.json is cut short or damaged"):
        folder.read_result()


def test_a_number_that_is_no_float_is_none() -> None:
    assert number_at({"a": {"b": 3}}, "a/b") == 3.0
    assert number_at({"a": {"b": 10**400}}, "a/b") is None
    assert number_at({"a": {"b": True}}, "a/b") is number_at({"a": [3]}, "a/b") is None


def test_a_damaged_environment_of_another_run_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for day, text in (("1", '{"trial": "0123456789"}'), ("2", "")):
        (folder := tmp_path / "outputs" / f"2026-12-0{day}" / "10-00-00-01234567").mkdir(parents=True)
        (folder / "environment.json").write_text(text)
    found = interrupted_run("0123456789")
    assert found is not None and found.parent.name == "2026-12-01"
