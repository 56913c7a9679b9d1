"""The effects of the varied keys: all at once in parallel coordinates, each by itself, and how much each matters."""

from itertools import pairwise

from danube_sweep.report.factor_effects import Factor
from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, Scale, dot, figure, short, svg, text
from danube_sweep.report.pictures.units import with_unit
from danube_sweep.results.ranking_table import number


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
