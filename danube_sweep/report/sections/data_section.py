"""The trials' data: rows, classes, lengths, duplicates and leaks."""

from collections.abc import Sequence
from typing import Final

from danube_sweep.report.markup import Markup, element
from danube_sweep.report.page_data import Report

_MOST: Final = 4
"""Folds and lengths make several descriptions of one data set: these are shown."""


def data_section(report: Report) -> Markup | None:
    """The facts that were printed before training, once for trials that read the same; None if no run has any."""
    found = report.data
    if not found:
        return None
    tables = [_lines(lines, names) for lines, names in found[:_MOST]]
    more = len(found) - _MOST
    rest = element("p", f"and {more} more, in each run's environment.json", class_="quiet") if more > 0 else None
    return element("section", element("h2", "Data"), *tables, rest, id="data")


def _lines(lines: Sequence[str], names: Sequence[str]) -> Markup:
    rows = []
    for line in lines:
        name, _, text = line.partition(": ")
        heading = element("b", name, class_="warn") if name == "warning" else name
        rows.append(element("tr", element("th", heading, scope="row"), element("td", element("bdi", text))))
    trials = f"{len(names)} trial{'s' * (len(names) != 1)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    rows.append(element("tr", element("th", "read by", scope="row"), element("td", element("bdi", trials))))
    return element("table", *rows, class_="facts")
