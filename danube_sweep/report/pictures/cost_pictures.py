"""The cost of quality: against memory and seconds with the Pareto front, and predicted memory against measured."""

from collections.abc import Callable, Sequence
from typing import Final

from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, dot, figure, path, spread
from danube_sweep.report.pictures.units import with_unit

GIB: Final = 2**30


def pareto(shown: Sequence[Shown], cost: Callable[[Shown], float | None], goal: str) -> list[Shown]:
    """The rows that no other is as good as for less, by rising cost."""
    sign = 1 if goal == "minimize" else -1
    known = [one for one in shown if one.row.mean is not None and cost(one) is not None]
    front: list[Shown] = []
    for one in sorted(known, key=lambda one: (cost(one) or 0.0, sign * (one.row.mean or 0.0))):
        if not front or sign * (one.row.mean or 0.0) < sign * (front[-1].row.mean or 0.0):
            front.append(one)
    return front


def memory_gib(one: Shown) -> float | None:
    return one.memory_gib


def seconds_shown(one: Shown) -> float | None:
    return one.seconds


def quality_against_cost(report: Report) -> Markup | None:
    """Quality against memory and against seconds; None without a row that has both."""
    pictures = [
        _against(report, memory_gib, "memory", "peak memory, GiB"),
        _against(report, seconds_shown, "time", "training and validation, seconds"),
    ]
    return joined(*pictures) if any(pictures) else None


def _against(report: Report, cost: Callable[[Shown], float | None], name: str, axis: str) -> Markup | None:
    known = [one for one in report.shown if one.row.mean is not None and cost(one) is not None]
    if not known:
        return None
    metric = report.ranking.metric.rpartition("/")[2]
    frame = Frame(f"{metric} against {name}")
    x = frame.across([cost(one) or 0.0 for one in known])
    y = frame.upward([one.row.mean or 0.0 for one in known])
    frame.axes(x, y, axis, with_unit(metric))
    frame.references(y, report.references)
    front = pareto(known, cost, report.ranking.goal)
    frame.add(path([(x(cost(one) or 0.0), y(one.row.mean or 0.0)) for one in front], class_="front"))
    best = next((one.row.mean for one in known if one.kind == "best"), None)
    for one in reversed(known):
        place = x(cost(one) or 0.0)
        if one.row.interval is not None and best is not None:
            low, high = (min(max(y(best + end), frame.top), frame.bottom) for end in one.row.interval)
            frame.add(element("line", x1=place, x2=place, y1=low, y2=high, class_="whisker thin"))
        frame.add(dot(place, y(one.row.mean or 0.0), one.kind, key=one.key))
    shared = " Rows that trained in a pack: predicted memory, their share of its seconds." if _any_shared(known) else ""
    note = f"The line joins rows that no other row beats at lower cost (Pareto front).{shared}"
    return figure(f"Quality against {name}", frame.draw(), note)


def _any_shared(shown: Sequence[Shown]) -> bool:
    return any(one.shared for one in shown)


def predicted_memory(report: Report) -> Markup | None:
    """Measured peak memory against the planner's; None without a row that has both."""
    known = [one for one in report.shown if one.row.peak_memory_bytes and one.row.predicted_memory_bytes]
    if not known:
        return None
    frame = Frame("predicted against measured memory")
    pairs = [
        ((one.row.predicted_memory_bytes or 0.0) / GIB, (one.row.peak_memory_bytes or 0.0) / GIB, one) for one in known
    ]
    every = [value for predicted, measured, _ in pairs for value in (predicted, measured)]
    x = frame.across(every)
    y = spread(every, frame.bottom, frame.top)
    frame.axes(x, y, "predicted, GiB", "measured, GiB")
    low, high = max(x.low, y.low), min(x.high, y.high)
    frame.add(path([(x(low), y(low)), (x(high), y(high))], class_="reference"))
    for predicted, measured, one in pairs:
        frame.add(dot(x(predicted), y(measured), one.kind, key=one.key))
    shared = " Trials of a pack share its memory, so they lie above the line." if _any_shared(known) else ""
    return figure(
        "Memory: predicted against measured", frame.draw(), f"Points on the line were predicted correctly.{shared}"
    )
