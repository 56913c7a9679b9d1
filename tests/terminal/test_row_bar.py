"""Rows of a prediction: the time left by the pace so far, on a terminal and in lines."""

import io

from rich.console import Console

from danube_sweep.terminal.row_bar import row_bar


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_after_two_seconds_and_then_every_ten() -> None:
    clock, text = Clock(), io.StringIO()
    with row_bar(1000, Console(file=text, width=80), clock) as done:
        for _ in range(50):  # ten rows a second
            clock.now += 1
            done(10)
    lines = text.getvalue().splitlines()
    assert lines == [f"{rows} of 1,000 rows, {left} left" for rows, left in
                     ((20, "1:38"), (120, "1:28"), (220, "1:18"), (320, "1:08"), (420, "0:58"))]  # fmt: skip


def test_a_terminal_has_a_bar_that_says_the_same() -> None:
    clock, text = Clock(), io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, color_system=None, _environ={})
    with row_bar(2000, console, clock) as done:
        clock.now += 60
        done(500)
    assert "500 of 2,000 rows, 3:00 left" in text.getvalue()
