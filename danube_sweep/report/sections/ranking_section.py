"""The ranking: a table that can be sorted and filtered, whose rows open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from danube_sweep.config.finite_number import is_finite_number
from danube_sweep.config.schema.states import State
from danube_sweep.report.markup import Markup, Part, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Scale
from danube_sweep.report.pictures.units import unit_of
from danube_sweep.report.sections.opened_row import opened, shared_pictures
from danube_sweep.results.ranking_table import benchmark_change, named, number, short_titles, shown
from danube_sweep.results.rows import Ranking
from danube_sweep.terminal.screen import human

AT_FIRST: Final = 100
"""Rows that are drawn when the page opens; page.css has this number too."""
_FOREST: Final = 120.0
_MOST_KEYS: Final = 6
"""Varied keys that are shown at first."""


@dataclass(frozen=True)
class _Cell:
    """A cell's content, and the number or text that it is sorted by; None is last."""

    shown: Part
    sort: float | str | None


@dataclass(frozen=True)
class _PageColumn:
    title: str
    cells: list[_Cell]
    kind: str | None = "number"
    """How it is set: number, plot, or None for text."""
    always: bool = False
    about: str | None = None
    look: str = ""
    """Classes besides: `stay` keeps it in sight while the table scrolls, `rest` shows it on request."""

    @property
    def classes(self) -> str | None:
        return " ".join(filter(None, (self.kind, self.look))) or None


def ranking_section(report: Report) -> Markup:
    """The table with its filter."""
    if not report.shown:
        return element("section", element("h2", "Ranking"), element("p", "No trial yet."), id="ranking")
    rows = [*report.shown, *report.baselines]
    columns = [column for column in _columns(report, rows) if column.always or _varies(column)]
    heads = [_head(place, column) for place, column in enumerate(columns)]
    opener = element("th", element("span", "open", class_="unseen"), class_="stay opens")
    head = element("thead", element("tr", opener, *heads))
    bodies = [_body(report, place, columns) for place in range(len(report.shown))]
    more = sum("rest" in column.look for column in columns)
    caption = f"Ranked by {report.ranking.metric} ({report.ranking.goal}); columns without differences are left out"
    beside = [_beside(place, rows[place], columns) for place in range(len(report.shown), len(rows))]
    foot = element("tfoot", *beside) if beside else None
    table = element("table", element("caption", caption), head, *bodies, foot, id="table")
    covers = [report.ranking.covers] if report.ranking.covers else []
    notes = [element("li", note) for note in [*report.ranking.notes, *covers]]
    return element(
        "section",
        element("h2", "Ranking"),
        shared_pictures(),
        _filter(report, more),
        element(
            "div", table, _further(len(bodies)), class_="scroll tall", tabindex=0, role="region", aria_label="Ranking"
        ),
        element("p", _ABOUT, class_="quiet"),
        element("ul", *notes, class_="quiet") if notes else None,
        id="ranking",
    )


_ABOUT: Final = (
    "Trials that differ only in seed or fold are one row. vs best: the difference to the best row over the seeds and "
    "folds that both have, and its 95 % interval, which is for all rows at once; a tie is a row whose interval holds "
    "0."
)


def _filter(report: Report, more: int) -> Markup:
    states = dict.fromkeys(trial.state for one in report.shown for trial in one.trials)
    options = [element("option", "every state", value=""), *(element("option", one, value=one) for one in states)]
    words = element("input", type="search", id="words", placeholder="rank=16 all_linear", autocomplete="off")
    return element(
        "form",
        element("label", "Filter ", words),
        element("label", "State ", element("select", *options, id="state")) if len(states) > 1 else None,
        element("label", element("input", type="checkbox", id="more"), f" {more} more columns") if more else None,
        element("output", f"{len(report.shown)} rows", id="count", role="status"),
        class_="filter",
    )


def _further(rows: int) -> Markup | None:
    """The button below the rows that are drawn at first; the page's script names the others in it."""
    if rows <= AT_FIRST:
        return None
    return element("button", "Show all rows", type="button", id="further", data_step=AT_FIRST, hidden=True)


def _head(place: int, column: _PageColumn) -> Markup:
    button = element("button", column.title, type="button", data_sort=str(place), title=column.about)
    order = "ascending" if column.title == "#" else "none"
    return element("th", button, scope="col", aria_sort=order, class_=column.classes)


def _varies(column: _PageColumn) -> bool:
    # By the shown text: memory that differs in its last byte looks the same to a reader.
    said = {str(cell.shown) for cell in column.cells if cell.sort is not None}
    return len(said) > 1 or (len(column.cells) == 1 and bool(said))


def _columns(report: Report, rows: Sequence[Shown]) -> list[_PageColumn]:
    ranking = report.ranking
    titles = short_titles(ranking.varied)
    metric = ranking.metric.rpartition("/")[2]
    ended_well = all(one.row.state == State.finished.value for one in rows)
    ranks = [_Cell(one.row.rank, one.row.rank) for one in rows]
    columns = [_PageColumn("#", ranks, always=True, look="stay rank")]
    columns.append(
        _PageColumn(metric, [_mean(one) for one in rows], always=True, about=_about_metric(ranking), look="stay metric")
    )
    states = [_state(one) for one in rows]
    columns.append(_PageColumn("state", states, kind=None, always=not ended_well, look="stay state"))
    columns += [
        _value_column(rows, key, titles[key], "rest" if place >= _MOST_KEYS else "")
        for place, key in enumerate(ranking.varied)
    ]
    columns.append(_difference_column(rows))
    columns.append(
        _PageColumn("reason", [_reason(one) for one in rows], None, always=any(one.row.error for one in rows))
    )
    about = "of a row that ended early: the predicted chance that it would have won"
    columns.append(_numbers(rows, "regret", lambda one: one.row.regret, "{:.0%}", about))
    fewest = "of a row that ended early: the fewest validations of its trials, on which its number rests"
    columns.append(_numbers(rows, "validations", lambda one: one.row.readings, "{:.0f}", fewest))
    for place, (name, _) in enumerate(ranking.objectives[1:], start=1):
        columns.append(_numbers(rows, name, _objective(place)))
    if len(ranking.objectives) > 1:
        cells = [_Cell("yes" if one.row.front else "", "yes" if one.row.front else None) for one in rows]
        columns.append(_PageColumn("front", cells, kind=None))
    rest = [
        *_metric_columns(rows, ranking),
        *_benchmark_columns(rows),
        _numbers(rows, "seeds", lambda one: one.row.seed_count or None, "{:.0f}"),
        _numbers(rows, "folds", lambda one: len(one.row.by_fold) if one.row.folds else None, "{:.0f}"),
        _numbers(rows, "seconds", lambda one: one.seconds, "{:,.0f}", "training and validation, s"),
        _numbers(rows, "GiB", lambda one: one.memory_gib, "{:.2f}", "peak memory"),
        _numbers(rows, "tokens/s", lambda one: one.row.tokens_per_s, "{:,.0f}"),
    ]
    return [*columns, *(replace(column, look="rest") for column in rest)]


def _about_metric(ranking: Ranking) -> str:
    unit = unit_of(ranking.metric.rpartition("/")[2])
    return ranking.metric if unit is None else f"{ranking.metric}, {unit}"


def _objective(place: int) -> Callable[[Shown], float | None]:
    return lambda one: one.row.objectives[place]


def _value_column(rows: Sequence[Shown], key: str, title: str, look: str) -> _PageColumn:
    values = [one.row.values.get(key) for one in rows]
    numeric = all(map(is_finite_number, values))
    cells = [_Cell(element("bdi", shown(value)), value if numeric else shown(value) or None) for value in values]
    return _PageColumn(title, cells, kind="number" if numeric else None, about=key, look=look)


def _mean(one: Shown) -> _Cell:
    if one.row.mean is None:
        return _Cell("", None)
    spread = "" if one.row.deviation is None else f" \N{PLUS-MINUS SIGN}{number(one.row.deviation)}"
    return _Cell(joined(number(one.row.mean), element("span", spread, class_="quiet")), one.row.mean)


def _numbers(
    rows: Sequence[Shown],
    title: str,
    of: Callable[[Shown], float | None],
    form: str | None = None,
    about: str | None = None,
) -> _PageColumn:
    values = [of(one) for one in rows]
    texts = ["" if value is None else number(value) if form is None else form.format(value) for value in values]
    return _PageColumn(title, [_Cell(said, value) for said, value in zip(texts, values, strict=True)], about=about)


def _metric_columns(rows: Sequence[Shown], ranking: Ranking) -> list[_PageColumn]:
    ranked = {metric for metric, _ in ranking.objectives}
    names = dict.fromkeys(name for one in rows for name in one.row.metrics if f"validation/{name}" not in ranked)
    tests = dict.fromkeys(name for one in rows for name in one.row.test)
    return [
        *(_numbers(rows, name, _metric("metrics", name)) for name in names),
        *(_numbers(rows, f"test {name}", _metric("test", name)) for name in tests),
    ]


def _benchmark_columns(rows: Sequence[Shown]) -> list[_PageColumn]:
    columns = []
    for task in dict.fromkeys(task for one in rows for task in one.row.benchmark):
        found = [one.row.benchmark.get(task, {}) for one in rows]
        after = [_Cell("" if "after" not in one else number(one["after"]), one.get("after")) for one in found]
        apart = [_Cell(benchmark_change(one), one.get("change")) for one in found]
        columns.append(_PageColumn(task, after, always=True, about="benchmark, after training"))
        about = "the score after training minus that before it, with its 95 % interval over the items"
        columns.append(_PageColumn(f"{task} change", apart, always=True, about=about))
    return columns


def _metric(part: str, name: str) -> Callable[[Shown], float | None]:
    def of(one: Shown) -> float | None:
        found: dict[str, float] = getattr(one.row, part)
        return found.get(name)

    return of


def _difference_column(rows: Sequence[Shown]) -> _PageColumn:
    ends = [end for one in rows for end in (one.row.interval or ()) if one.row.interval]
    ends += [one.row.difference for one in rows if one.row.difference is not None]
    scale = Scale(min([*ends, 0.0]), max([*ends, 0.0]), 4.0, _FOREST - 4.0)
    return _PageColumn("vs best", [_difference(one, scale) for one in rows], kind="plot")


def _difference(one: Shown, scale: Scale) -> _Cell:
    row = one.row
    if row.mean is None:
        return _Cell("", None)
    if row.difference is None:
        return _Cell(joined(_forest(scale), element("b", "best") if one.kind == "best" else ""), 0.0)
    low, high = row.interval or (row.difference, row.difference)
    kind = "good" if row.tie else one.kind
    marks = (
        element("line", x1=scale(low), x2=scale(high), y1=8, y2=8, class_="whisker"),
        element("circle", cx=scale(row.difference), cy=8, r=3.5, class_=f"mark {kind}"),
    )
    said = f"{number(row.difference, '+')}{' tie' if row.tie else ''}"
    between = "" if row.interval is None else f"{number(low, '+')} .. {number(high, '+')}"
    told = joined(element("span", said), element("span", f" {between}", class_="quiet"))
    return _Cell(joined(_forest(scale, *marks), told), row.difference)


def _forest(scale: Scale, *marks: Markup) -> Markup:
    """A difference as a mark beside the line of no difference, which is at the same place in every row."""
    box = {"viewBox": f"0 0 {_FOREST:.0f} 16", "width": _FOREST, "height": 16, "aria_hidden": "true"}
    zero = element("line", x1=scale(0.0), x2=scale(0.0), y1=0, y2=16, class_="axis")
    return element("svg", zero, *marks, **box, class_="forest")


def _state(one: Shown) -> _Cell:
    said = "" if one.row.baseline else one.row.state  # its first cell has its name
    return _Cell(element("span", said), said or None)


def _reason(one: Shown) -> _Cell:
    return _Cell(element("span", one.row.error, class_="reason") if one.row.error else "", one.row.error)


def _body(report: Report, place: int, columns: Sequence[_PageColumn]) -> Markup:
    one = report.shown[place]
    cells = [column.cells[place] for column in columns]
    drawn = [_cell(cell, column) for cell, column in zip(cells, columns, strict=True)]
    name = f"Open row {one.row.rank or place + 1}"
    button = element(
        "button",
        element("span", name, class_="unseen"),
        type="button",
        class_="opener",
        aria_expanded="false",
        aria_controls=f"{one.key}-more",
    )
    row = element("tr", element("td", button, class_="stay opens"), *drawn, class_=f"row {one.kind}")
    # Text to the browser, which parses it when the page's script opens the row.
    inside = element("script", opened(report, one), type="text/plain")
    more = element("tr", element("td", inside, colspan=len(columns) + 1), hidden=True, class_="more")
    words = " ".join(f"{key}={shown(value)}" for key, value in one.row.values.items())
    told = f"{words} {' '.join(one.row.trials)} {one.row.error or ''}"
    states = " ".join(dict.fromkeys(trial.state for trial in one.trials))
    more = Markup(more.replace("<tr", f'<tr id="{one.key}-more"', 1))
    known = {"data_words": told.lower(), "data_states": states, "data_about": _about(one)}
    return element("tbody", row, more, id=one.key, data_row=one.key, **known)


def _beside(place: int, one: Shown, columns: Sequence[_PageColumn]) -> Markup:
    """A baseline: a row that is not sorted and does not open."""
    rest = columns[1:]  # the first is the rank, and it has none
    cells = [_cell(column.cells[place], column) for column in rest]
    return element(
        "tr", element("td", one.row.state, colspan=2, class_="stay opens"), *cells, class_=f"row {one.kind} baseline"
    )


def _about(one: Shown) -> str:
    """A row in a line, shown when the pointer is over its marks."""
    said = [named(one.row)]
    if one.row.mean is not None:
        said.append(number(one.row.mean))
    if one.memory_gib is not None:
        said.append(f"{one.memory_gib:.2f} GiB")
    if one.seconds is not None:
        said.append(human(one.seconds))
    return ", ".join([*said, one.row.state])


def _cell(cell: _Cell, column: _PageColumn) -> Markup:
    sort = f"{cell.sort:.8g}" if isinstance(cell.sort, float) else cell.sort
    return element("td", cell.shown, data_v="" if sort is None else sort, class_=column.classes)
