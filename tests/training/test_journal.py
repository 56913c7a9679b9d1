"""What a trial tells: rows that wait and are written in order, the time left, and a loss that is not finite."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from workbench import build

from danube_sweep.config.schema import Config
from danube_sweep.errors import Diverged
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.tracking import open_tracker
from danube_sweep.training.journal import MOST_OVERFLOWS, Journal, Surroundings
from danube_sweep.training.step_plan import StepPlan

Tiny = Callable[..., Config]


class Told:
    """A journal over an empty folder, and what it has written."""

    def __init__(self, config: Config, folder: Path, *, step: int = 0) -> None:
        self.folder, self.screen = RunFolder(folder), io.StringIO()
        folder.mkdir(exist_ok=True)
        tracker = open_tracker(config.tracking, run_id="0", run_name="a", folder=folder, resolved={}, say=print)
        terminal = Terminal(Console(file=self.screen, width=200), plain=True)
        where = Surroundings(self.folder, tracker, terminal, "a", predicted={"seconds_per_step": 0.25})
        prepared = build(config).prepared
        self.journal = Journal(config, StepPlan(config, prepared.parts["train"], prepared.pad_id), where)
        self.journal.begin(step, tokens=100 * step, seconds=float(step))
        self.journal.show()

    def add(self, *losses: float, first: int = 1) -> None:
        for step, loss in enumerate(losses, first):
            self.journal.add(step, loss=torch.tensor(loss), lr=0.1, grad_norm=torch.tensor(2.0), tokens=100 * step)

    @property
    def rows(self) -> list[dict[str, str]]:
        with self.folder.metrics.open(newline="") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def config(tiny: Tiny) -> Config:
    return tiny("precision=fp32", "lora=none", "trainer.max_steps=12", "trainer.log_every=3")


def test_steps_wait_until_there_are_enough_and_are_written_in_their_order(config: Config, tmp_path: Path) -> None:
    told = Told(config, tmp_path / "a")
    told.add(3.0, 2.0)
    assert not told.journal.is_full and not told.folder.metrics.exists()
    told.add(1.5, first=3)
    assert told.journal.is_full
    assert told.journal.write(4.5, companions=1, overflows=0) == 1.5
    assert [(row["step"], row["loss"], row["seconds"]) for row in told.rows] == [
        ("1", "3.0", ""),
        ("2", "2.0", ""),
        ("3", "1.5", "4.5"),
    ]
    assert not told.journal.is_full


def test_the_first_steps_say_how_long_the_others_take_in_the_company_they_have(config: Config, tmp_path: Path) -> None:
    told = Told(config, tmp_path / "a")
    told.add(3.0, 2.0)
    told.journal.write(1.0, companions=4, overflows=0)  # its share: half a second a step, of two seconds
    told.add(1.0, first=3)
    told.journal.write(9.0, companions=4, overflows=0)
    assert told.screen.getvalue().count("of training left") == 1
    said = "a step takes 0.5 s (predicted 0.25), its share in a pack of 4: 0:20 of training left"
    assert said in told.screen.getvalue()


def test_a_validation_is_a_row_of_its_own_and_the_best_is_marked(config: Config, tmp_path: Path) -> None:
    told = Told(config, tmp_path / "a")
    metrics = dict.fromkeys(config.head.metrics, 0.5)
    told.journal.add_validation(3, 1.25, metrics, best=True)
    told.journal.add_validation(6, 2.5, metrics, best=False)
    assert [(row["step"], row["part"], row["seconds"], row["log_loss"], row["loss"]) for row in told.rows] == [
        ("3", "validation", "1.25", "0.5", ""),
        ("6", "validation", "2.5", "0.5", ""),
    ]
    first, second = (line for line in told.screen.getvalue().splitlines() if "validation" in line)
    assert first.endswith("  best") and not second.endswith("best")


def test_who_goes_on_drops_the_rows_beyond_its_step_and_counts_from_there(config: Config, tmp_path: Path) -> None:
    before = Told(config, tmp_path / "a")
    before.add(3.0, 2.0, 1.5)
    before.journal.write(3.0, companions=1, overflows=0)
    told = Told(config, tmp_path / "a", step=2)
    assert [row["step"] for row in told.rows] == ["1", "2"]
    assert "resumed at step 2 of 12" in told.screen.getvalue()
    told.add(1.0, first=3)
    told.journal.write(6.0, companions=1, overflows=0)
    assert "a step takes 4 s" in told.screen.getvalue()  # from the 2 seconds of its first two steps


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_written_and_ends_the_trial(config: Config, tmp_path: Path, bad: float) -> None:
    told = Told(config, tmp_path / "a")
    told.add(3.0, bad, 1.0)
    with pytest.raises(Diverged, match=r"not finite at step 2; lower optimizer\.lr=") as caught:
        told.journal.write(1.0, companions=1, overflows=0)
    assert "\n" not in str(caught.value) and len(told.rows) == 3


def test_too_many_steps_skipped_in_a_row_end_the_trial(config: Config, tmp_path: Path) -> None:
    told = Told(config, tmp_path / "a")
    told.add(3.0)
    told.journal.write(1.0, companions=1, overflows=MOST_OVERFLOWS - 1)
    told.add(2.0, first=2)
    with pytest.raises(Diverged, match="fp16 overflowed in 20 steps in a row"):
        told.journal.write(2.0, companions=1, overflows=MOST_OVERFLOWS)
