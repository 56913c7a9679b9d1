"""Hostile models, folders, sweep files, ids and data: none runs and none escapes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import payloads
import pytest

from danube_sweep.terminal.quiet_libraries import quiet_libraries


@pytest.fixture(autouse=True)
def forgetful_wandb() -> Iterator[None]:
    """What W&B has read of a payload's environment is gone for later tests."""
    yield
    if (wandb := sys.modules.get("wandb")) is not None:
        wandb.teardown()


@pytest.mark.parametrize("name", payloads.PAYLOADS)
def test_nothing_runs_and_nothing_escapes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_CACHE", str(tmp_path / "cache"))
    quiet_libraries()
    outcome = payloads.attempt(name, tmp_path / "place")
    assert (outcome.ran, outcome.escapes) == (False, []), outcome.said
    assert outcome.codes and "Traceback" not in outcome.said and "internal" not in outcome.said


def test_the_watch_sees_code_that_runs_and_files_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(place: payloads.Place) -> None:
        exec(place.code)
        place.commands = [["version"]]

    def escapes(place: payloads.Place) -> None:
        place.run("show", "data=table", f"data.path={place.outside / 'rows.csv'}", "head=sequence", *payloads.SMALL[:3])

    monkeypatch.setitem(payloads.PAYLOADS, "runs", runs)
    monkeypatch.setitem(payloads.PAYLOADS, "escapes", escapes)
    assert payloads.attempt("runs", tmp_path / "1").ran
    assert any("rows.csv" in one for one in payloads.attempt("escapes", tmp_path / "2").escapes)
