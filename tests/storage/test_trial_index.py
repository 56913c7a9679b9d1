"""A watched sweep's trials cost what has changed, and whatever comes is seen."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from danube_sweep.config.schema import Config
from danube_sweep.config.stored import load_config
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.storage.trial_index import TrialIndex
from danube_sweep.sweeping.propose.next_trial import FolderSource

LONG_AGO_S = 1_000_000_000


def write_trial(sweep: Path, number: int, *, hash: str | None = None) -> None:
    path = sweep / f"{number:03d}"
    path.mkdir(parents=True, exist_ok=True)
    stated = {"number": number, "hash": hash or f"{number:032x}", "overrides": [f"seed={number}"], "draw": None}
    write_json(path / "trial.json", {"format": 1, **stated})


def numbers(index: TrialIndex) -> list[int]:
    return [entry.number for entry in index.entries()]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every path whose state the operating system was asked for."""
    seen: list[str] = []
    stat = os.stat

    def noted(path: Any, *args: Any, **options: Any) -> os.stat_result:
        seen.append(str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", noted)
    yield seen


def test_what_has_not_changed_is_not_looked_at_again(tmp_path: Path, looked: list[str]) -> None:
    for number in range(1, 41):
        write_trial(tmp_path, number)
    os.utime(tmp_path, (LONG_AGO_S, LONG_AGO_S))
    index = TrialIndex(tmp_path, trusted_s=10.0, clock=lambda: 0.0)
    assert numbers(index) == list(range(1, 41))
    looked.clear()
    assert numbers(index) == list(range(1, 41)) and looked == [str(tmp_path)]
    write_trial(tmp_path, 41)
    looked.clear()
    assert numbers(index)[-1] == 41 and [one for one in looked if one.endswith("trial.json")] == [
        str(tmp_path / "041" / "trial.json")
    ]


def test_a_trial_comes_and_goes_and_its_file_may_come_later(tmp_path: Path) -> None:
    write_trial(tmp_path, 1)
    (tmp_path / "002").mkdir()
    os.utime(tmp_path, (LONG_AGO_S, LONG_AGO_S))
    index = TrialIndex(tmp_path, trusted_s=10.0, clock=lambda: 0.0)
    assert numbers(index) == [1]
    write_trial(tmp_path, 2)  # the sweep's own folder does not change by it
    os.utime(tmp_path, (LONG_AGO_S, LONG_AGO_S))
    assert numbers(index) == [1, 2]
    (tmp_path / "001" / "trial.json").unlink()
    (tmp_path / "001").rmdir()
    assert numbers(index) == [2]
    assert numbers(TrialIndex(tmp_path / "none", trusted_s=10.0)) == []


def test_a_changed_file_is_read_when_it_is_no_longer_trusted(tmp_path: Path) -> None:
    write_trial(tmp_path, 1)
    now = [0.0]
    index = TrialIndex(tmp_path, trusted_s=10.0, clock=lambda: now[0])
    assert numbers(index) == [1]
    write_trial(tmp_path, 1, hash="f" * 32)
    (tmp_path / "002").mkdir()
    (tmp_path / "002" / "trial.json").write_text("{")
    assert [one.path.name for one in index.damaged()] == ["002"]
    now[0] = 10.0
    assert [entry.hash for entry in index.entries()] == ["f" * 32]


def test_a_config_goes_from_the_plan_to_the_claim_unless_its_file_was_changed(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    configs = [tiny(f"seed={seed}", "lora.rank=4") for seed in range(3)]
    with folder.locked():
        folder.add([(config, [f"seed={config.seed}"], None) for config in configs])
    source = FolderSource(folder.watched())
    claim = source.claim()
    assert claim is not None and claim.config is configs[0]
    assert claim.config == load_config(claim.entry.folder.config)
    claim.release()
    file = folder.entries()[1].folder.config
    file.write_text(file.read_text().replace("seed: 1", "seed: 7"))
    second = source.claim()
    assert second is not None and second.config.seed == 7
    second.release()


def test_a_trial_costs_the_same_in_a_larger_sweep(
    tiny: Callable[..., Config], tmp_path: Path, looked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # counted again every five seconds
    config, asked = tiny("lora.rank=4"), []
    for count in (150, 300):
        folder = SweepFolder(tmp_path / str(count))
        for number in range(1, count + 1):
            write_trial(folder.path, number)
        for entry in folder.entries():
            folder.write_config(entry, config)
        os.utime(folder.path, (LONG_AGO_S, LONG_AGO_S))
        source = FolderSource(folder.watched())
        for turn in range(3):
            looked.clear()
            (first,) = source.waiting(lambda one: one is config, 1)
            claim = source.claim(lambda one, first=first: one is first)
            assert claim is not None
            write_json(claim.entry.folder.result, {"state": "finished"})
            assert source.progress() == (turn + 1, count)
            source.ended(claim, "finished")
            claim.release()
        asked.append(len(looked))
    assert asked[0] == asked[1] < 60
