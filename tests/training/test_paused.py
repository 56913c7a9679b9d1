"""A trial that is paused and goes on is the trial that never was: bit for bit alone, within 1e-5 in packs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import metrics
from test_pack import Visitors, alike, entrant, result_of

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import Verdict
from danube_sweep.errors import Paused
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training.run import run_pack, run_trial

Tiny = Callable[..., Config]
OWN = ["precision=fp32", "trainer.max_steps=8", "trainer.validate_every=2", "lora.dropout=0.1", "trainer.log_every=1"]


class Pausing:
    """Pauses a trial at each of some validations, once."""

    def __init__(self, *validations: int) -> None:
        self._left = set(validations)

    def __call__(self, validations: int) -> Verdict:
        if validations not in self._left:
            return Verdict.go_on
        self._left.remove(validations)
        return Verdict.pause


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trial that was never paused, alone."""
    from conftest import tiny_config

    path = tmp_path_factory.mktemp("whole") / "run"
    run_pack([entrant(tiny_config(*OWN), path)], Visitors())
    yield path


def meaning(path: Path) -> Any:
    """All that must be equal to the last bit."""
    return (
        result_of(path),
        metrics(path, "train"),
        metrics(path, "validation"),
        (path / "predictions.parquet").read_bytes(),
    )


def test_a_trial_that_was_paused_three_times_ends_as_one_that_never_was(
    tiny: Tiny, whole: Path, tmp_path: Path
) -> None:
    one = entrant(tiny(*OWN), tmp_path / "run", judge=Pausing(1, 2, 3))
    folder = RunFolder(one.path)
    for step in (2, 4, 6):
        with pytest.raises(Paused, match=f"paused at step {step} of 8"):
            run_trial(one.config, one.path, one.terminal, judge=one.judge)
        rest = json.loads(folder.paused.read_text())
        assert not folder.result.exists() and (rest["state"], rest["steps"]) == ("paused", step)
        assert (one.path / "adapter" / "adapter_config.json").is_file() and folder.predictions.is_file()
        assert (folder.checkpoints / f"step-{step:08d}").is_dir()
    run_trial(one.config, one.path, one.terminal, judge=one.judge)
    assert meaning(one.path) == meaning(whole) and not folder.paused.exists()


def test_a_trial_of_a_pack_that_was_paused_three_times_ends_within_1e_5(
    tiny: Tiny, whole: Path, tmp_path: Path
) -> None:
    one = entrant(tiny(*OWN), tmp_path / "run", judge=Pausing(1, 2, 3))
    for number in range(4):
        beside = entrant(tiny(*OWN, f"seed={number + 1}", "lora.rank=5"), tmp_path / str(number), judge=Pausing(number))
        run_pack([one, beside], (door := Visitors()))
        ends = dict(door.ends)
        assert isinstance(ends["run"], Paused) == (number < 3) and isinstance(ends[str(number)], Paused) == (number > 0)
    alike(result_of(one.path), result_of(whole))
    rows = [[float(row["loss"]) for row in metrics(path, "train")] for path in (one.path, whole)]
    assert rows[0] == pytest.approx(rows[1], abs=1e-5)


def test_trials_that_validate_together_are_on_record_before_any_is_judged(tiny: Tiny, tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def judge(_validations: int) -> Verdict:
        files = [tmp_path / str(number) for number in range(3)]
        seen.append([len(metrics(file, "validation")) for file in files])
        return Verdict.go_on

    entrants = [entrant(tiny(*OWN, f"seed={number}"), tmp_path / str(number), judge=judge) for number in range(3)]
    run_pack(entrants, Visitors())
    assert seen == [[count] * 3 for count in (1, 2, 3) for _ in range(3)]


def test_a_trial_that_was_killed_at_a_rung_is_judged_before_it_trains_on(tiny: Tiny, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(_validations: int) -> Verdict:
        raise Killed

    one = entrant(tiny(*OWN), tmp_path / "run", judge=kill)
    with pytest.raises(Killed):
        run_pack([one], Visitors())
    run_pack([entrant(one.config, one.path, judge=Pausing(1))], (door := Visitors()))
    assert isinstance(dict(door.ends)["run"], Paused) and len(metrics(one.path, "train")) == 2
