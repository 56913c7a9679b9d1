"""The progress of a prediction, and the time left at the pace so far, on stderr: a bar on a terminal, else lines."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from danube_sweep.terminal.cursor import cursor_shown_at_the_end
from danube_sweep.terminal.screen import LINE_EVERY_S, duration

FIRST_LINE_S: Final = 2.0


@final
class RowCount:
    """The rows done of a total, as text with the time left."""

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self.total, self.done = total, 0
        self._clock, self._start_s = clock, clock()

    def advance(self, rows: int) -> str:
        """Counts rows, and returns `1,024 of 10,000 rows, 2:10 left`."""
        self.done = min(self.done + rows, self.total)
        left_s = self.elapsed_s / max(self.done, 1) * (self.total - self.done)
        return f"{self.done:,} of {self.total:,} rows, {duration(left_s)} left"

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._start_s


@contextmanager
def row_bar(
    total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the rows of each advance. Lines come after two seconds and then every ten."""
    console, counted = console or Console(stderr=True), RowCount(total, clock)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(counted, console)
        return
    columns = (BarColumn(bar_width=None), TextColumn("{task.fields[state]}"))
    bars = Progress(*columns, console=console, expand=True, transient=True)
    with cursor_shown_at_the_end(console), bars as bar:
        task = bar.add_task("", total=total, state=f"{total:,} rows")
        yield lambda rows: _moved(bar, task, counted, rows)


def _moved(bar: Progress, task: TaskID, counted: RowCount, rows: int) -> None:
    bar.update(task, advance=rows, state=counted.advance(rows))


def _lines(counted: RowCount, console: Console) -> Callable[[int], None]:
    due_s = FIRST_LINE_S

    def told(rows: int) -> None:
        nonlocal due_s
        said = counted.advance(rows)
        if counted.elapsed_s >= due_s and counted.done < counted.total:
            due_s = counted.elapsed_s + LINE_EVERY_S
            console.print(said, highlight=False, soft_wrap=True)

    return told
