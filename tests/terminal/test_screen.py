"""A terminal gets bars, everything else gets lines at a slow pace, and log.txt gets the lines in either case."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from danube_sweep.errors import DiskError
from danube_sweep.terminal.screen import Log, Terminal, result_table


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen_lines(console: Console) -> list[str]:
    return [line for line in re.sub(r"\x1b\[[?\d]*[A-Za-z]|\r", "\n", output(console)).splitlines() if line.strip()]


def file_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=80, height=25, force_terminal=True, color_system=None, _environ={})


def ascii_console() -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)


def run(progress: Terminal, clock: Clock, steps: int, seconds_a_step: float) -> None:
    progress.start("trial", steps)
    for step in range(1, steps + 1):
        clock.now += seconds_a_step
        progress.update("trial", step, loss=1.0321, tokens_per_s=3120.4)
    progress.finish("trial")


def test_without_a_terminal_a_line_comes_every_ten_seconds_and_for_the_first_and_last_step() -> None:
    console, clock = file_console(), Clock()
    with Terminal(console, clock=clock) as progress:
        run(progress, clock, steps=25, seconds_a_step=1.0)
    assert output(console).splitlines() == [
        "step 1/25  loss 1.0321  3,120 tokens/s  0:24 left",
        "step 11/25  loss 1.0321  3,120 tokens/s  0:14 left",
        "step 21/25  loss 1.0321  3,120 tokens/s  0:04 left",
        "step 25/25  loss 1.0321  3,120 tokens/s  0:00 left",
    ]


def test_the_time_left_of_a_resumed_trial_counts_only_its_own_steps() -> None:
    console, clock = file_console(), Clock()
    with Terminal(console, clock=clock) as progress:
        progress.start("trial", total_steps=5000, done_steps=1000)
        clock.now += 10
        progress.update("trial", 1010, loss=1.0, tokens_per_s=10.0)
    assert "1:06:30 left" in output(console)


def test_a_trial_that_ends_early_shows_the_step_it_reached() -> None:
    console, clock = file_console(), Clock()
    with Terminal(console, clock=clock) as progress:
        progress.start("trial", 100)
        for step in (1, 2, 3):
            progress.update("trial", step, loss=float("nan"), tokens_per_s=1.0)
        progress.finish("trial")
    assert [line.split("  ")[0] for line in output(console).splitlines()] == ["step 1/100", "step 3/100"]


def test_trials_of_a_pack_are_named_and_share_the_pace() -> None:
    console, clock = file_console(), Clock()
    with Terminal(console, clock=clock) as progress:
        for name in ("a", "b"):
            progress.start(name, 100)
        for step in range(1, 41):
            clock.now += 1
            for name in ("a", "b"):
                progress.update(name, step, loss=1.0, tokens_per_s=1.0)
    assert [line.split("  ")[:2] for line in output(console).splitlines()] == [
        [name, f"step {step}/100"] for step in (1, 21) for name in ("a", "b")
    ]


def test_a_terminal_shows_bars_with_everything_in_eighty_columns() -> None:
    console, clock = terminal(), Clock()
    name = "003-a-very-long-slug-[of]-a-trial-that-goes-on"
    with Terminal(console, clock=clock) as progress:
        progress.start(name, 1000)
        progress.start("short", 125, done_steps=5)
        clock.now += 10
        progress.update(name, 20, loss=1.0321, tokens_per_s=312_000.0)
        progress.update("short", 10, loss=2.5, tokens_per_s=3120.0)
        progress.note("a note [red]above[/red]")
    lines = screen_lines(console)
    (bar,) = [line for line in lines[-2:] if "20/1000" in line]
    assert bar.endswith("20/1000 loss 1.0321  312,000 tokens/s  8:10 left")
    assert bar.startswith("003-a-very-lon..")
    assert any(line.startswith("short  ") and "━" in line and "10/125" in line for line in lines[-2:])
    assert "a note [red]above[/red]" in lines
    assert max(len(line) for line in lines) <= 80


def test_a_finished_trials_bar_goes_away() -> None:
    console = terminal()
    with Terminal(console) as progress:
        progress.start("first", 10)
        progress.start("second", 10)
        progress.finish("first")
    before, last = screen_lines(console)[-2:]
    assert "second" in last and "first" not in before


@pytest.mark.parametrize("plain", [True, False])
def test_the_log_has_lines_notes_and_table_whatever_the_terminal_shows(tmp_path: Path, plain: bool) -> None:
    clock = Clock()
    with Terminal(terminal(), plain=plain, log=Log(tmp_path / "log.txt"), clock=clock) as progress:
        progress.note("a note")
        run(progress, clock, steps=2, seconds_a_step=1.0)
        progress.table([("loss", "1.03"), ("folder", "runs/1")], "Result")
    assert (tmp_path / "log.txt").read_text().splitlines() == [
        "a note",
        "step 1/2  loss 1.0321  3,120 tokens/s  0:01 left",
        "step 2/2  loss 1.0321  3,120 tokens/s  0:00 left",
        "Result",
        "loss    1.03",
        "folder  runs/1",
    ]


def test_secrets_reach_neither_log_nor_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hush-hush-hush")
    console = file_console()
    with Terminal(console, log=Log(tmp_path / "log.txt")) as progress:
        progress.note("url?token=hush-hush-hush")
        progress.table([("url", "hush-hush-hush")], "t")
    assert "hush" not in output(console) + (tmp_path / "log.txt").read_text()


def test_a_log_goes_on_where_it_ended_and_names_a_folder_it_cannot_write(tmp_path: Path) -> None:
    for text in ("one", "two\nthree"):
        Log(tmp_path / "log.txt").write(text)
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nthree\n"
    with pytest.raises(DiskError, match=r"log\.txt cannot be written"):
        Log(tmp_path / "missing" / "log.txt").write("x")


def test_an_ascii_terminal_gets_ascii() -> None:
    console, clock = ascii_console(), Clock()
    with Terminal(console, plain=False, clock=clock) as progress:
        progress.start("größer…", 10)
        progress.update("größer…", 1, loss=1.0, tokens_per_s=1.0)
        progress.note("→ geschafft")
        progress.table([("Verlust", "1,03 ± 0,01")], "Übersicht")
    with Terminal(console, clock=clock) as progress:
        progress.note("→ geschafft")
    console.file.flush()
    assert b"? geschafft" in console.file.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_long_note_is_one_line_outside_a_terminal() -> None:
    console = file_console()
    with Terminal(console) as progress:
        progress.note("word " * 40)
    assert len(output(console).splitlines()) == 1


def test_the_table_fits_eighty_columns_and_draws_nothing_but_text() -> None:
    console = file_console()
    console.print(result_table([("validation loss", "1.0321"), ("[folder]", "x" * 100)], "[trial] 3"))
    lines = output(console).splitlines()
    assert lines[0].strip() == "[trial] 3"
    assert lines[1].split("  ")[0] == "validation loss"
    assert max(map(len, lines)) <= 80 and output(console).isascii() and output(console).count("x") == 100


def test_what_is_recorded_goes_to_the_log_alone(tmp_path: Path) -> None:
    console = file_console()
    with Terminal(console) as progress:
        progress.note("before")
        progress.log_to(tmp_path / "log.txt")
        progress.record("a long story")
    assert (output(console), (tmp_path / "log.txt").read_text()) == ("before\n", "a long story\n")
