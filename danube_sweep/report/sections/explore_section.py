"""Two plots with axes of the reader's choice, drawn by the page's script: a scatter with a map, and parallel axes."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from danube_sweep.config.finite_number import is_finite_number
from danube_sweep.report.factor_effects import Factor
from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import figure
from danube_sweep.report.pictures.units import unit_of
from danube_sweep.report.sections.validation_section import embedded
from danube_sweep.results.ranking_table import short_titles, shown

_FEWEST: Final = 2
_MOST_AXES: Final = 7
"""Parallel axes at first, the metric's included."""

Column = dict[str, Any]


def explore_section(report: Report) -> Markup | None:
    """None with fewer than two rows that have a metric."""
    rows = [one for one in report.shown if one.row.mean is not None]
    if len(rows) < _FEWEST:
        return None
    columns = _columns(report, rows)
    keys = len(report.factors)
    axes = [*range(min(keys, _MOST_AXES - 1)), keys]
    data = {
        "columns": [{name: value for name, value in column.items() if name != "of"} for column in columns],
        "rows": [[one.key, one.kind, *(_value(column, one) for column in columns)] for one in rows],
        "metric": keys,
        "goal": report.ranking.goal,
    }
    return element(
        "section",
        element("h2", "Explore"),
        element("p", _ABOUT, class_="quiet"),
        element("div", _scatter(columns, keys), _parallel(columns, axes), class_="figures"),
        embedded("explore-data", data),
        id="explore",
    )


_ABOUT: Final = (
    "Drag over marks, or along an axis of the second plot, to keep only these rows in the ranking. Its filter then "
    "holds the range as text, like lr>=0.001, where it can be typed and removed too."
)


def _columns(report: Report, rows: Sequence[Shown]) -> list[Column]:
    """The varied keys, the metric, then every other number that some row has."""
    titles = short_titles([factor.name for factor in report.factors])
    found = [_factor(factor, titles[factor.name]) for factor in report.factors]
    ranked = report.ranking.metric.rpartition("/")[2]
    numbers: dict[str, Callable[[Shown], float | None]] = {ranked: lambda one: one.row.mean}
    for place, (metric, _) in enumerate(report.ranking.objectives[1:], start=1):
        numbers[metric.rpartition("/")[2]] = _objective(place)
    for name in dict.fromkeys(name for one in rows for name in one.row.metrics):
        numbers.setdefault(name, _metric("metrics", name))
    for name in dict.fromkeys(name for one in rows for name in one.row.test):
        numbers[f"test_{name}"] = _metric("test", name)
    numbers |= {
        "seconds": lambda one: one.seconds,
        "GiB": lambda one: one.memory_gib,
        "tokens/s": lambda one: one.row.tokens_per_s,
    }
    taken = {column["name"] for column in found}
    for name, of in numbers.items():
        if name == ranked or any(of(one) is not None for one in rows):
            title = f"{name} (result)" if name in taken else name
            unit = "training and validation, s" if name == "seconds" else unit_of(name)
            found.append({"name": title.replace(" ", "_"), "title": title, "unit": unit, "of": of})
    return found


def _factor(factor: Factor, title: str) -> Column:
    column: Column = {"name": title.replace(" ", "_"), "key": factor.name, "title": title, "unit": unit_of(factor.name)}

    def of(one: Shown) -> Any:
        return one.row.values.get(factor.name)

    if factor.numeric:
        return {**column, "log": factor.is_logarithmic, "of": of}
    labels = [level.label for level in factor.levels]
    places = {label: place for place, label in enumerate(labels)}
    return {**column, "levels": labels, "of": lambda one: places.get(shown(of(one)) or "default")}


def _objective(place: int) -> Callable[[Shown], float | None]:
    return lambda one: one.row.objectives[place]


def _metric(part: str, name: str) -> Callable[[Shown], float | None]:
    return lambda one: getattr(one.row, part).get(name)


def _value(column: Column, one: Shown) -> float | int | None:
    value = column["of"](one)
    if not is_finite_number(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _scatter(columns: Sequence[Column], metric: int) -> Markup:
    """Axes to choose; where the metric is neither, a map of it lies under the marks."""
    numbers_first = sorted(range(metric), key=lambda place: "levels" in columns[place])
    x, y = [*numbers_first, metric, metric][:2]
    chosen = {"x": x, "y": y}
    picks = [
        element("label", f"{title} ", _select(f"axis-{name}", columns, chosen[name]))
        for title, name in (("Across", "x"), ("Up", "y"))
    ]
    shade = element("label", element("input", type="checkbox", id="axis-map", checked=True), " map of the metric")
    note = (
        "The map is an average of the rows around, weighted by distance. Stronger colour is better; far from a mark "
        "it says nothing."
    )
    drawn = joined(element("div", *picks, shade, class_="filter"), element("div", id="scatter", class_="canvas"))
    return figure("Any two against each other", drawn, note, class_="wide")


def _select(name: str, columns: Sequence[Column], chosen: int) -> Markup:
    options = [
        element("option", column["title"], value=place, selected=place == chosen)
        for place, column in enumerate(columns)
    ]
    return element("select", *options, id=name)


def _parallel(columns: Sequence[Column], axes: Sequence[int]) -> Markup:
    boxes = [
        element("label", element("input", type="checkbox", value=place, checked=place in axes), f" {column['title']}")
        for place, column in enumerate(columns)
    ]
    choice = element("details", element("summary", "Axes"), element("div", *boxes, id="axes", class_="filter"))
    note = "Each line is a configuration; on the metric's axis the best is at the top."
    drawn = joined(choice, element("div", id="parallel", class_="canvas"))
    return figure("All choices at once", drawn, note, class_="wide")
