"""The terminal: one bar per running trial, lines above them, and a short table at the end.

`Terminal` owns the console, the bars and the log. On a terminal the bars move. Elsewhere (a file, a notebook, CI) each
trial prints a line every ten seconds. log.txt gets all lines in both cases, notes and tables included.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from danube_sweep.config.neutral_text import neutral
from danube_sweep.storage.files import appending
from danube_sweep.storage.redaction import redact
from danube_sweep.terminal.cursor import cursor_shown_at_the_end

LINE_EVERY_S = 10.0


@final
class Log:
    """Appends lines to log.txt, without secrets; without a path it does nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Adds `text` and a newline. Raises DiskError."""
        if self._path is None:
            return
        with appending(self._path) as stream:
            stream.write(f"{_neutral_lines(redact(text))}\n".encode(errors="backslashreplace"))


class Screen(Protocol):
    """Where a trial shows its progress: `Terminal`, or a sweep's link to the process that owns the terminal."""

    def start(self, name: str, total_steps: int, done_steps: int = 0) -> None: ...
    def update(self, name: str, step: int, *, loss: float, tokens_per_s: float) -> None: ...
    def alive(self) -> None: ...
    def note(self, text: str) -> None: ...
    def tell(self, about: str, lines: Sequence[str]) -> None: ...
    def log_to(self, path: Path) -> None: ...
    def record(self, text: str) -> None: ...


@dataclass
class _Bar:
    total_steps: int
    first_step: int
    started_s: float
    task: TaskID
    said_s: float | None = None
    unsaid: str | None = None


@final
class Terminal:
    """A context manager around training. `plain` forces lines (True) or bars (False); the default is the console's."""

    def __init__(
        self,
        console: Console | None = None,
        plain: bool | None = None,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or Console()
        self._console, self._log, self._clock = console, log or Log(), clock
        self._plain = not console.is_terminal or console.is_dumb_terminal if plain is None else plain
        self._bars: dict[str, _Bar] = {}
        self._cursor = ExitStack()
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            TextColumn("{task.completed}/{task.total}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
        )

    def __enter__(self) -> Self:
        if not self._plain:
            self._cursor.enter_context(cursor_shown_at_the_end(self._console))
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._plain:  # rich prints an empty line for bars that never started
            self._rich.stop()
            self._cursor.close()

    def start(self, name: str, total_steps: int, done_steps: int = 0) -> None:
        """Shows a trial that has done `done_steps` of `total_steps`."""
        widest = self._console.width // 5  # rich would shorten the numbers on the right as much as the name
        short = encodable(neutral(name if len(name) <= widest else name[: widest - 2] + ".."), self._console)
        task = self._rich.add_task(short, total=total_steps, completed=done_steps, state="")
        self._bars[name] = _Bar(total_steps, done_steps, self._clock(), task)

    def update(self, name: str, step: int, *, loss: float, tokens_per_s: float) -> None:
        """Shows that the trial is at `step`."""
        bar, now = self._bars[name], self._clock()
        state = f"loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s  {_left(bar, step, now)} left"
        self._rich.update(bar.task, completed=step, state=state)
        bar.unsaid = f"{name + '  ' if len(self._bars) > 1 else ''}step {step}/{bar.total_steps}  {state}"
        # With n trials each waits n times as long, so that the lines together come at the same pace.
        due = bar.said_s is None or now - bar.said_s >= LINE_EVERY_S * len(self._bars)
        if due or step >= bar.total_steps:
            self._say(bar, now)

    def finish(self, name: str) -> None:
        """Takes the trial away, after a line for its last step."""
        bar = self._bars[name]
        self._say(bar, self._clock())
        del self._bars[name]
        self._rich.remove_task(bar.task)

    def alive(self) -> None:
        """A sign of life between two updates. Nothing is shown."""

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._log.write(text)
        self._print(text)

    def tell(self, about: str, lines: Sequence[str]) -> None:
        """Prints lines that trials have in common; a sweep prints those `about` one thing once."""
        for line in lines:
            self.note(line)

    def show(self, what: RenderableType) -> None:
        """Prints a table above the bars."""
        self._console.print(Neutral(what))

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    def log_to(self, path: Path) -> None:
        """From now on, all output also goes to `path`."""
        self._log = Log(path)

    def record(self, text: str) -> None:
        """Adds a text to the log only."""
        self._log.write(text)

    def table(self, rows: Sequence[tuple[str, str]], title: str) -> None:
        """Prints `result_table`."""
        width = max((len(key) for key, _ in rows), default=0)
        self._log.write("\n".join([title, *(f"{key.ljust(width)}  {value}" for key, value in rows)]))
        shown = [(self._shown(key), self._shown(value)) for key, value in rows]
        self._console.print(result_table(shown, self._shown(title)))

    def _say(self, bar: _Bar, now: float) -> None:
        if bar.unsaid is None:
            return
        self._log.write(bar.unsaid)
        if self._plain:
            self._print(bar.unsaid)
        bar.said_s, bar.unsaid = now, None

    def _print(self, text: str) -> None:
        self._console.print(self._shown(text), markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _shown(self, text: str) -> str:
        return encodable(_neutral_lines(redact(text)), self._console)


def result_table(rows: Sequence[tuple[str, str]], title: str) -> Table:
    """Names on the left, values on the right, long values folded; drawn without any lines, so ASCII stays ASCII."""
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(Text(key), Text(value))
    return table


def _left(bar: _Bar, step: int, now: float) -> str:
    done = step - bar.first_step
    if done <= 0:
        return "?"
    return duration((now - bar.started_s) / done * max(bar.total_steps - step, 0))


def human(seconds: float) -> str:
    """Seconds in readable units: 0.31 s, 42 s, 18 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03, or 2:03 under an hour."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _neutral_lines(text: str) -> str:
    return "\n".join(map(neutral, text.split("\n")))


@final
class Neutral:
    """A renderable for rich with escaped control characters in its texts. Names come from data and from strangers."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._what, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(_neutral_lines(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._what)


def encodable(text: str, console: Console) -> str:
    """The text with a question mark for each character that the console cannot show."""
    return text.encode(console.encoding, "replace").decode(console.encoding)
