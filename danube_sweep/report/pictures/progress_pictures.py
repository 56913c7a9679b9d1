"""The best result so far, over the trials that ended and over time."""

from danube_sweep.report.markup import Markup, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, dot, figure, path
from danube_sweep.report.pictures.units import with_unit

Ended = list[tuple[float, float, Shown]]
"""When a trial ended, its metric and its row."""


def best_so_far(report: Report) -> Markup | None:
    """Both pictures; None with fewer than two trials that have a metric."""
    ended = _ended(report)
    if len(ended) < 2:
        return None
    counted = [(float(place), value, one) for place, (_, value, one) in enumerate(ended, start=1)]
    pictures = [_plot(report, "Best so far, over trials", "ended trials", counted)]
    start_s = min((bar.start_s for bar in report.timeline.bars), default=None)
    if start_s is not None:
        unit, size = _unit(ended[-1][0] - start_s)
        timed = [((end_s - start_s) / size, value, one) for end_s, value, one in ended]
        pictures.append(_plot(report, "Best so far, over time", f"since the sweep began, {unit}", timed))
    return joined(*pictures)


def _ended(report: Report) -> Ended:
    """The trials with a metric, in the order in which they ended."""
    ends: dict[str, float] = {}
    for bar in report.timeline.bars:
        ends[bar.trial] = max(bar.end_s, ends.get(bar.trial, 0.0))
    found = [
        (ends[trial.name], value, one)
        for one in report.shown
        for trial in one.used
        if trial.name in ends and (value := trial.number(report.ranking.metric)) is not None
    ]
    return sorted(found, key=lambda one: one[0])


def _unit(seconds: float) -> tuple[str, float]:
    return ("hours", 3600.0) if seconds >= 7200 else ("min", 60.0) if seconds >= 180 else ("s", 1.0)


def _plot(report: Report, title: str, x_name: str, ended: Ended) -> Markup:
    frame = Frame(title)
    x, y = frame.across([place for place, *_ in ended]), frame.upward([value for _, value, _ in ended])
    frame.axes(x, y, x_name, with_unit(report.ranking.metric.rpartition("/")[2]))
    frame.references(y, report.references)
    better = min if report.ranking.goal == "minimize" else max
    best, steps = ended[0][1], [(x(ended[0][0]), y(ended[0][1]))]
    for place, value, _ in ended:
        if better(best, value) != best:
            steps += [(x(place), y(best)), (x(place), y(value))]
            best = value
    steps.append((x(ended[-1][0]), y(best)))
    frame.add(path(steps, class_="front"))
    frame.add(*(dot(x(place), y(value), one.kind, key=one.key, size=3) for place, value, one in ended))
    return figure(title, frame.draw(), "Each mark is a trial; the line is the best one so far.")
