"""Progress of reading a large file, on stderr. It happens before a trial has a terminal of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from danube_sweep.terminal.cursor import cursor_shown_at_the_end

SHOWN_FROM_BYTES: Final = 2**30


@contextmanager
def byte_bar(title: str, total_bytes: int) -> Iterator[Callable[[int], object]]:
    """Yields a function to call with the bytes of each advance.

    Shows a bar on a terminal and one line elsewhere; nothing if the reading is short.
    """
    console = Console(stderr=True)
    if total_bytes < SHOWN_FROM_BYTES:
        yield lambda _done: None
        return
    if not console.is_terminal:
        console.print(f"{title}: {total_bytes / 2**30:.1f} GiB, once on this machine", highlight=False, soft_wrap=True)
        yield lambda _done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=console, expand=True, transient=True)
    with cursor_shown_at_the_end(console), bars as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda done: bar.advance(task, done)
