"""A report in the terminal: the page without its pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from danube_sweep.errors import DiskError
from danube_sweep.report.collect import gather
from danube_sweep.report.learning_curves import curve_metric
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.cost_pictures import memory_gib, pareto, seconds_shown
from danube_sweep.report.row_predictions import Seen
from danube_sweep.results.ranking_files import write
from danube_sweep.results.ranking_table import lines_below, named, number, plain, ranking_table
from danube_sweep.terminal.screen import Terminal, human

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_BAR: Final = 24
_MOST_CLASSES: Final = 20


def show_report(path: Path, terminal: Terminal) -> None:
    """Prints all that the page of a sweep says, and rewrites ranking.csv and ranking.md.

    Raises CheckpointError for a folder that is not a sweep.
    """
    report = gather(path)
    try:
        write(report.ranking, path)
    except DiskError as error:
        terminal.note(str(error))
    terminal.show(Full(report))


@dataclass(frozen=True)
class Full:
    """Drawn when printed: only the console knows how wide it is and which signs it has."""

    report: Report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = self.report
        yield ranking_table(report.ranking, options.max_width)
        for line in lines_below(report.ranking):
            yield _text(line, console)
        for title, parts in _parts(report, console):
            yield Text()
            yield Text(title, style="bold")
            yield from parts


def _parts(report: Report, console: Console) -> Iterator[tuple[str, list[RenderableType]]]:
    yield "the answer", [_text(line, console) for line in answer_lines(report)]
    if report.answer.unknown:
        yield "open questions of this sweep", [_text(f"- {one}", console) for one in report.answer.unknown]
    if report.factors:
        yield "which choice matters (PED-ANOVA)", [_importance(report, console)]
        yield "each choice by itself: mean of its rows, 95 % over them", [_factors(report, console)]
    if any(one.row.mean is not None for one in report.shown):
        yield "no other row is as good at lower cost", [_front(report, console)]
    if report.answer.best is not None and report.answer.best.seen is not None and report.answer.best.seen.classes:
        matrix = _confusions(report.answer.best.seen, console)
        yield "confusions of the best: each class, and how often it was taken for which", [matrix]
    if curves := _curves(report):
        yield f"{curve_metric(report.ranking.metric)} at each validation", [_table(curves, console)]
    if report.compared:
        facts = [(one.name, f"{one.value}{' (differs)' if one.differs else ''}") for one in report.compared]
        yield "what was compared", [_table(facts, console)]
    if report.published is not None:
        for table in report.published.tables:
            rows = [("", *table.models), *((name, *figures) for name, figures in table.rows)]
            yield table.title, [_text(table.note, console), _table(rows, console)]


def answer_lines(report: Report) -> list[str]:
    """The command, its number and interval, and the rows that are as good at lower cost."""
    answer = report.answer
    if answer.best is None:
        return ["no trial has finished yet" if report.under_way or not report.shown else "no trial has finished"]
    sure = answer.best.row.own_interval
    between = f", 95 % {number(sure[0])} .. {number(sure[1])}" if sure else ""
    lines = [
        *answer.nothing_learned,
        answer.command or f"no answer; the row that comes first is {named(answer.best.row)}",
        f"{report.ranking.metric} {number(answer.best.row.mean or 0.0)}{between}{_cost(answer.best)}",
    ]
    if not answer.learned:
        return lines
    good = [f"as good and cheaper: {named(one.shown.row)}: {one.saved}" for one in answer.cheaper[:5]]
    then = [f"then: {command}" for command in answer.then]
    return [*lines, *(good or [_none_cheaper(report)]), *then]


def _none_cheaper(report: Report) -> str:
    if not any(one.row.interval is not None for one in report.shown):
        return "as good and cheaper: unknown, as no difference has an interval"
    return f"{report.answer.as_good} as good, none cheaper"


def _cost(one: Shown) -> str:
    memory = "" if one.memory_gib is None else f", {one.memory_gib:.2f} GiB"
    seconds = "" if one.seconds is None else f", {human(one.seconds)}"
    return f"{memory}{seconds}{' (trained in a pack: predicted memory, its share of the time)' if one.shared else ''}"


def _importance(report: Report, console: Console) -> RenderableType:
    if isinstance(report.importance, str):
        return _text(f"not known: {report.importance}", console)
    return _table(
        [(name, "#" * max(1, round(share * _BAR)), f"{share:.0%}") for name, share in report.importance.items()],
        console,
    )


def _factors(report: Report, console: Console) -> Table:
    rows = []
    for factor in report.factors:
        if factor.is_range:
            continue
        for level in factor.levels:
            between = " .. ".join(number(end) for end in level.interval) if level.interval else ""
            rows.append((f"{factor.name}={level.label}", number(level.mean), between, _rows(len(level.numbers))))
    return _table(rows, console)


def _front(report: Report, console: Console) -> Table:
    rows = []
    for of, name in ((memory_gib, "memory"), (seconds_shown, "time")):
        for one in pareto(report.shown, of, report.ranking.goal):
            said = f"{of(one):.2f} GiB" if of is memory_gib else human(of(one) or 0.0)
            rows.append((name, said, number(one.row.mean or 0.0), named(one.row)))
    return _table(rows, console)


def _confusions(seen: Seen, console: Console) -> Table:
    """The classes that a row's label was taken for most often, of the largest classes."""
    order = seen.confusions_CC.sum(axis=1).argsort(kind="stable")[::-1][:_MOST_CLASSES].tolist()
    rows = []
    for actual in order:
        counts = seen.confusions_CC[actual]
        taken = [place for place in counts.argsort(kind="stable")[::-1][:4].tolist() if counts[place]]
        rows.append((seen.classes[actual], ", ".join(f"{seen.classes[place]} {counts[place]}" for place in taken)))
    return _table(rows, console)


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _curves(report: Report) -> list[tuple[str, str, str]]:
    rows = []
    for one in report.shown:
        found = [report.curves[trial.name] for trial in one.trials if trial.name in report.curves]
        values = found[0].values.tolist() if found else []
        if values:
            rows.append((named(one.row), _sparkline(values), f"{number(values[0])} to {number(values[-1])}"))
    return rows


def _sparkline(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    places = [round((value - low) / (high - low) * 7) if high > low else 0 for value in values]
    return "".join(_BLOCKS[place] for place in places)


def _table(rows: Sequence[Sequence[str]], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(_text(cell, console) for cell in row))
    return table


def _text(content: str, console: Console) -> Text:
    fits = plain(content).encode(console.encoding, "replace").decode(console.encoding)
    return Text(fits, overflow="fold")
