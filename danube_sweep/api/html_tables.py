"""How a Run and a Sweep look in a notebook: small tables, every text of theirs escaped."""

from collections.abc import Sequence
from typing import Final

from danube_sweep.report.markup import Markup, element
from danube_sweep.results.ranking_table import PLUS_MINUS, columns_of, summary_lines
from danube_sweep.results.rows import Ranking

ROWS: Final = 20
"""Of a ranking; the rest is counted."""


def pairs_html(title: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Names beside values under a title."""
    rows = [element("tr", element("th", name, style="text-align: left"), element("td", value)) for name, value in pairs]
    return element("table", _caption(title), *rows)


def ranking_html(title: str, ranking: Ranking) -> str:
    """The ranking as the terminal shows it, its first rows, and what it says below."""
    columns, shown = columns_of(ranking, PLUS_MINUS), range(min(len(ranking.shown), ROWS))
    head = element("tr", *(element("th", column.title) for column in columns))
    rows = [element("tr", *(element("td", column.cells[place]) for column in columns)) for place in shown]
    lines = summary_lines(ranking)
    if (more := len(ranking.shown) - len(shown)) > 0:
        lines = [f"{more} more rows: .ranking() has them all", *lines]
    return element("div", element("table", _caption(title), head, *rows), *(element("p", line) for line in lines))


def _caption(title: str) -> Markup:
    return element("caption", title, style="caption-side: top; text-align: left")
