"""A sweep while it runs: its table and the progress of its slots live, and the page drawn again each minute."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from danube_sweep.errors import DiskError
from danube_sweep.report.learning_curves import curve_metric
from danube_sweep.report.page import write_page
from danube_sweep.report.sweep_progress import Progress, Standing, changed, standing
from danube_sweep.results.rank import rank_trials
from danube_sweep.results.ranking_table import lines_below, plain, ranking_table
from danube_sweep.results.rows import Ranking
from danube_sweep.results.trial_results import StoredTrial, read_trials
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.terminal.cursor import cursor_shown_at_the_end
from danube_sweep.terminal.screen import Neutral, duration

LOOK_EVERY_S: Final = 2.0
_SHARE: Final = 0.1
"""Of the time, that looking may take: the trials need the processor."""


@final
class Watch:
    """`look` reads the sweep and returns the view; `draw` draws the page. `follow` does both until it is over."""

    def __init__(
        self,
        path: Path,
        console: Console,
        *,
        output: Path | None = None,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._console, self._output = path, console, output
        self._every_s, self._clock = every_s, clock
        self._ranked: tuple[object, Ranking] | None = None
        self._said = ""
        self.standing: Standing | None = None

    def follow(self) -> None:
        """Shows the sweep until every trial has ended. Raises CheckpointError for a folder that is not a sweep."""
        shown, due_s = self.look(), self._clock()
        # On no terminal there is nothing to move: a line for each page.
        moving = Live(Neutral(shown), console=self._console, auto_refresh=False, transient=True)
        with cursor_shown_at_the_end(self._console), moving as live:
            while self.standing is not None and not self.standing.is_over:
                if self._clock() >= due_s:
                    due_s = self._clock() + self._every_s
                    self.draw()
                    if not self._console.is_terminal:
                        self._console.print(self._headline())
                began_s = time.monotonic()
                live.update(Neutral(self.look()), refresh=self._console.is_terminal)
                time.sleep(max(LOOK_EVERY_S, (time.monotonic() - began_s) / _SHARE))
        self.draw()
        self._console.print(self.look())

    def draw(self) -> None:
        """Writes the page; a full disk is reported and does not end the watch."""
        try:
            _, file = write_page(self._path, self._output)
            self._said = f"{file} drawn at {datetime.fromtimestamp(self._clock(), UTC):%H:%M:%S} UTC"
        except DiskError as error:
            self._said = str(error)

    def look(self) -> RenderableType:
        """The sweep as it is now."""
        trials, notes = read_trials(self._path)
        ranking = self._ranking(trials, notes)
        metric = curve_metric(ranking.metric)
        self.standing = standing(trials, self._clock(), self._to_draw(), metric)
        parts: list[RenderableType] = [self._headline()]
        if self.standing.running:
            parts += [self._slots(self.standing.running, metric), Text()]
        parts += [ranking_table(ranking, self._console.width), *map(self._text, lines_below(ranking))]
        return Group(*parts)

    def _ranking(self, trials: list[StoredTrial], notes: list[str]) -> Ranking:
        # Intervals cost a second where there are many trials, and change only when one has ended. The states beside
        # them change when one begins, too.
        mark = changed(self._path), tuple(trial.state for trial in trials)
        if self._ranked is None or self._ranked[0] != mark:
            self._ranked = (mark, rank_trials(self._path, trials, notes))
        return self._ranked[1]

    def _to_draw(self) -> int | None:
        folder = SweepFolder(self._path)
        described = folder.read() if folder.file.is_file() else {}
        if not described.get("search"):
            return None
        wanted = described.get("settings", {}).get("sweep", {}).get("trials")
        return wanted if isinstance(wanted, int) else None

    def _headline(self) -> Text:
        here = self.standing
        if here is None:
            return Text()
        said = [f"{here.ended} of {here.total} ended", f"{len(here.running)} running"]
        if not here.is_over and not here.running:
            said.append(f"nothing is training now; continue with: danube-sweep resume {self._path}")
        elif here.left_s is not None and not here.is_over:
            said.append(f"about {duration(here.left_s)} left")
        said.append(self._said)
        text = self._text(", ".join(part for part in said if part))
        text.stylize("bold")
        return text

    def _slots(self, running: list[Progress], metric: str) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column(ratio=1, min_width=8)
        for _ in range(4):
            table.add_column(no_wrap=True, justify="right")
        for one in running:
            bar = ProgressBar(total=1.0, completed=one.share or 0.0)
            share = "starting" if one.share is None else f"{one.share:.0%}"
            left = "" if one.left_s is None else f"{duration(one.left_s)} left"
            loss = "" if one.loss is None else f"loss {one.loss:.4f}"
            validated = "" if one.validation is None else self._text(f"{metric} {one.validation:.4f}")
            table.add_row(self._text(one.trial), bar, share, loss, validated, left)
        return table

    def _text(self, content: str) -> Text:
        return Text(plain(content).encode(self._console.encoding, "replace").decode(self._console.encoding))
