"""Learning curves: training loss, learning rate and metric, by step and by seconds, and the GPU's memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from danube_sweep.report.learning_curves import Curve, Floats, curve_metric
from danube_sweep.report.markup import Markup, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, Scale, dot, figure, path
from danube_sweep.report.pictures.units import with_unit

_ORDER: Final = ("none", "early", "other", "good", "best")
"""Later marks lie above earlier ones."""
Points = list[tuple[float, float]]


def learning_curves(report: Report) -> Markup | None:
    """Four pictures with a line for every trial; None where no trial has a curve."""
    lines = list(_lines(report))
    if not lines:
        return None
    metric = curve_metric(report.ranking.metric)
    return joined(
        _figure(lines, "training loss by step", ("step", "training loss", _losses), _MEANS),
        _figure(lines, "learning rate by step", ("step", "learning rate", _rates)),
        _figure(lines, "training loss by seconds", ("training, s", "training loss", _losses_by_second), _MEANS),
        _figure(lines, f"{metric} by step", ("step", metric, _metrics), references=_references(report)),
        _figure(
            lines, f"{metric} by seconds", ("training, s", metric, _metrics_by_second), references=_references(report)
        ),
        _figure(
            lines, "GPU memory over time", ("training, s", "memory, GiB", _memory), "In use when a row was written."
        ),
    )


_MEANS: Final = "Each point is the mean since the previous one."


def _paired(places: Floats, values: Floats) -> Points:
    return list(zip(places.tolist(), values.tolist(), strict=True))


def _losses(curve: Curve) -> Points:
    return _paired(curve.steps, curve.losses)


def _losses_by_second(curve: Curve) -> Points:
    return _paired(curve.seconds, curve.losses)


def _rates(curve: Curve) -> Points:
    return _paired(*curve.rates)


def _metrics(curve: Curve) -> Points:
    return _paired(curve.at_steps, curve.values)


def _metrics_by_second(curve: Curve) -> Points:
    return _paired(curve.at_seconds, curve.values)


def _memory(curve: Curve) -> Points:
    seconds, found = curve.memory
    return _paired(seconds, found / 2**30)


def _figure(
    lines: Sequence[tuple[Shown, str, Curve]],
    title: str,
    axes: tuple[str, str, Callable[[Curve], Points]],
    note: str = "",
    references: dict[str, float] | None = None,
) -> Markup | None:
    """A plot of what `axes` (names and points) say; None where no trial has a point."""
    x_name, y_name, points = axes
    found = [(one, state, points(curve)) for one, state, curve in lines]
    found = [line for line in found if line[2]]
    return figure(title, _plot(found, title, x_name, y_name, references or {}), note) if found else None


def _references(report: Report) -> dict[str, float]:
    return report.references if report.ranking.metric.startswith("validation/") else {}


def _lines(report: Report) -> Iterator[tuple[Shown, str, Curve]]:
    for shown in sorted(report.shown, key=lambda one: _ORDER.index(one.kind)):
        for trial in shown.trials:
            if trial.name in report.curves:
                yield shown, trial.state, report.curves[trial.name]


def _plot(
    lines: Sequence[tuple[Shown, str, Points]], title: str, x_name: str, y_name: str, references: dict[str, float]
) -> Markup:
    frame = Frame(title)
    x = frame.across([place for *_, points in lines for place, _ in points], room=0.02)
    ends = [value for *_, points in lines for _, value in _without_start(points)]
    y = frame.upward([*ends, *_near(ends, references)])
    frame.axes(x, y, x_name, with_unit(y_name))
    frame.references(y, references)
    for shown, state, points in lines:
        frame.add(_line(shown, state, points, x, y, frame))
    return frame.draw()


def _line(shown: Shown, state: str, points: Points, x: Scale, y: Scale, frame: Frame) -> Markup:
    inside = [(x(place), min(max(y(value), frame.top), frame.bottom)) for place, value in points]
    if len(inside) == 1:
        return dot(*inside[0], shown.kind, key=shown.key, size=2.5)
    return path(inside, class_=f"line {shown.kind} {state}", data_row=shown.key)


def _without_start(points: Points) -> Points:
    # A first loss far above all others would press the rest together.
    return points[len(points) // 10 :]


def _near(values: Sequence[float], references: dict[str, float]) -> list[float]:
    """The references that can be shown without pressing the values together."""
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    return [value for value in references.values() if low - room <= value <= high + room]


def small_curve(curve: Curve, metric: str, references: dict[str, float]) -> Markup:
    """One trial's training loss as a line and its validations as dots."""
    frame = Frame("learning curve", width=320, height=200, left=56)
    losses, values = _losses(curve), _metrics(curve)
    every = [*losses, *values]
    x = frame.across([place for place, _ in every])
    same = metric in ("log_loss", "mse")
    y = frame.upward([value for _, value in ([*_without_start(losses), *values] if same else values or losses)])
    frame.axes(x, y, "step", with_unit(metric) if values else "training loss")
    frame.references(y, references)
    if (same or not values) and len(losses) > 1:
        held = [(x(place), min(max(y(value), frame.top), frame.bottom)) for place, value in losses]
        frame.add(path(held, class_="line other"))
    places = [(x(place), y(value)) for place, value in values]
    if len(places) > 1:
        frame.add(path(places, class_="line best"))
    frame.add(*(dot(*place, "other", size=3) for place in places))
    return frame.draw()
