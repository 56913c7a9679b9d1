"""The effects of the varied keys: all at once in parallel coordinates, each by itself, and how much each matters."""

from itertools import pairwise

from danube_sweep.report.factor_effects import Factor, label_of
from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, Scale, dot, figure, path, short, spread, svg, text, tick_labels
from danube_sweep.report.pictures.units import with_unit
from danube_sweep.results.ranking_table import number, short_titles

_DEPTH = {"best": 3, "good": 2, "other": 1}


def parallel_coordinates(report: Report) -> Markup | None:
    """A line for every row through its values to its metric; None with fewer than two varied keys."""
    scored = [one for one in report.shown if one.row.mean is not None]
    if len(report.factors) < 2 or len(scored) < 2:
        return None
    width, height, top, bottom = 880.0, 320.0, 40.0, 300.0
    places = [70 + (width - 150) * axis / len(report.factors) for axis in range(len(report.factors) + 1)]
    heights = [_heights(factor, bottom, top) for factor in report.factors]
    ends = (top, bottom) if report.ranking.goal == "minimize" else (bottom, top)
    means = spread([one.row.mean or 0.0 for one in scored], *ends, room=0.02)
    titles = short_titles([factor.name for factor in report.factors])
    marks = [
        _axis(x, titles[factor.name], _thinned(levels), top, bottom)
        for x, factor, levels in zip(places, report.factors, heights, strict=False)
    ]
    at = means.ticks()
    ticks = {label: means(tick) for label, tick in zip(tick_labels(at), at, strict=True)}
    marks.append(_axis(places[-1], report.ranking.metric.rpartition("/")[2], ticks, top, bottom))
    for one in sorted(scored, key=lambda one: _DEPTH.get(one.kind, 0)):
        through = [levels[label_of(factor, one.row)] for factor, levels in zip(report.factors, heights, strict=True)]
        points = list(zip(places, [*through, means(one.row.mean or 0.0)], strict=True))
        marks.append(path(points, class_=f"line {one.kind}", data_row=one.key))
    note = "Each line is a configuration; on the last axis the best is at the top."
    return figure("All choices at once", svg(width, height, "parallel coordinates", *marks), note, class_="wide")


def _heights(factor: Factor, bottom: float, top: float) -> dict[str, float]:
    """Where each level is on its axis."""
    labels = [level.label for level in factor.levels]
    if factor.numeric:
        scale = spread([float(label) for label in labels], bottom, top, logarithmic=factor.is_logarithmic, room=0.0)
        return {label: scale(float(label)) for label in labels}
    apart = (bottom - top) / (len(labels) - 1)
    return {label: bottom - place * apart for place, label in enumerate(labels)}


def _thinned(levels: dict[str, float], apart: float = 15.0) -> dict[str, float]:
    """The labels that can be told apart, both ends among them."""
    kept: dict[str, float] = {}
    for label, place in sorted(levels.items(), key=lambda one: -one[1]):
        if all(abs(place - other) >= apart for other in kept.values()):
            kept[label] = place
    return kept


def _axis(x: float, title: str, labels: dict[str, float], top: float, bottom: float) -> Markup:
    names = [text(x - 5, y + 4, short(label, 14), "end", title=label) for label, y in labels.items()]
    line = element("line", x1=x, x2=x, y1=top, y2=bottom, class_="axis")
    return joined(line, *names, text(x, top - 16, short(title, 20), "middle", "name", title=title))


def one_factor(report: Report) -> Markup | None:
    """A plot for every varied key: each row, and the mean of each value with its interval."""
    if not report.factors:
        return None
    metric = report.ranking.metric.rpartition("/")[2]
    kinds = {one.key: one for one in report.shown}
    drawn = [_factor_plot(report, factor, metric, kinds) for factor in report.factors]
    return joined(*drawn)


def _factor_plot(report: Report, factor: Factor, metric: str, shown: dict[str, Shown]) -> Markup:
    frame = Frame(f"{metric} by {factor.name}")
    levels = factor.levels
    y = frame.upward([value for level in levels for value in level.numbers])
    if factor.numeric:
        numbers = [float(level.label) for level in levels]
        x = frame.across(numbers, logarithmic=factor.is_logarithmic, room=0.04 if factor.is_range else 0.12)
        scaled = ", logarithmic" if factor.is_logarithmic else ""
        at = [] if factor.is_range else numbers
        frame.axes(x, y, f"{with_unit(factor.name)}{scaled}", with_unit(metric), at=at)
        places = [x(number) for number in numbers]
    else:
        frame.y_axis(y, with_unit(metric))
        apart = (frame.right - frame.left) / len(levels)
        places = [frame.left + apart * (place + 0.5) for place in range(len(levels))]
        frame.labels(places, [level.label for level in levels])
        frame.add(text((frame.left + frame.right) / 2, frame.height - 6, short(factor.name, 50), "middle", "name"))
    frame.references(y, report.references)
    free = min((b - a for a, b in pairwise(places)), default=60.0)
    for place, level in zip(places, levels, strict=True):
        if not factor.is_range:
            _add_mean(frame, y, place, level.mean, level.interval, min(18.0, 0.4 * free))
        for at_x, key in zip(_beside(place, len(level.keys), factor.is_range, free), level.keys, strict=True):
            one = shown[key]
            frame.add(dot(at_x, y(one.row.mean or 0.0), one.kind, key=key, size=3.2))
    note = (
        "Each mark is a configuration."
        if factor.is_range
        else "Bar: mean of the configurations with its 95 % interval."
    )
    return figure(factor.name, frame.draw(), note)


def _beside(place: float, count: int, exact: bool, free: float) -> list[float]:
    # Marks of one value are side by side, right of its bar, in the room that there is before the next value.
    if exact:
        return [place] * count
    first, wide = min(8.0, 0.25 * free), min(28.0, 0.4 * free)
    return [place + first + min(3.0, wide / count) * number for number in range(count)]


def _add_mean(
    frame: Frame, y: Scale, place: float, mean: float, interval: tuple[float, float] | None, width: float
) -> None:
    if interval is not None:
        low, high = (min(max(y(end), frame.top), frame.bottom) for end in interval)
        frame.add(element("line", x1=place, x2=place, y1=low, y2=high, class_="whisker"))
    title = element("title", f"mean {number(mean)}")
    frame.add(element("rect", title, x=place - width / 2, y=y(mean) - 1.5, width=width, height=3, class_="mean"))


def importances(report: Report) -> Markup:
    """Bars of how much each key matters, or a sentence why that is not known."""
    caption = "Which choice matters"
    if isinstance(report.importance, str):
        return figure(caption, element("p", f"Not known: {report.importance}.", class_="quiet"))
    bar, left, width = 24.0, 150.0, 420.0
    marks = []
    for place, (name, share) in enumerate(report.importance.items()):
        y = 6 + place * bar
        long = max(1.0, share * (width - left - 50))
        marks += [
            text(left - 8, y + 14, short(name, 22), "end", title=name),
            element("rect", x=left, y=y, width=long, height=bar - 8, rx=2, class_="bar"),
            text(left + long + 6, y + 14, f"{share:.0%}"),
        ]
    count = sum(one.row.mean is not None for one in report.shown)
    note = (
        f"PED-ANOVA over {count} configurations: how differently the best ones are spread over the values of each key. "
        f"{'With few configurations this is only a hint.' if count < 20 else ''}"
    )
    return figure(caption, svg(width, 12 + bar * len(report.importance), caption, *marks), note)
