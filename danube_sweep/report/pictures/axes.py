"""Axes, scales and marks, shared by the pictures. Colours come from the page's style, by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, final

from danube_sweep.errors import GuardError
from danube_sweep.report.markup import Markup, Part, element, joined

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_LABEL: Final = 18
"""Signs of a label that fit under a mark."""
_APART: Final = 14.0
"""Pixels between two lines of text."""
_ROOM: Final = 36.0
"""Pixels for the label of a tick on a horizontal axis."""


@dataclass(frozen=True)
class Scale:
    """From a number to a place in pixels; logarithmic where both ends are positive and it is asked for."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, here = self._unit(self.low), self._unit(self.high), self._unit(value)
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _unit(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.logarithmic else value

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers between the ends."""
        if self.logarithmic:
            return self._powers(most)
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = span / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * one for one in _STEPS if power * one >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _powers(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        inside: list[float] = []
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
            inside = [one for one in found if self.low * 0.999 <= one <= self.high * 1.001]
            if len(inside) <= most:
                break
        if len(inside) < 2:  # less than a power of ten: round numbers as on any axis
            return replace(self, logarithmic=False).ticks(most)
        return inside[:: math.ceil(len(inside) / most)]


def spread(
    values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, room: float = 0.05
) -> Scale:
    """A scale over the finite values, with some room at both ends."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if logarithmic and low > 0:
        wide = (high / low) ** room if high > low else 1.5
        return Scale(low / wide, high * wide, start, end, logarithmic=True)
    wide = (high - low) * room if high > low else abs(high) * 0.1 or 0.5
    return Scale(low - wide, high + wide, start, end)


def said(value: float) -> str:
    """A number by itself, short."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return _scientific(value, 0)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """The ticks of an axis in one form, with as many digits as give their values to a hundredth of a step."""
    sizes = [abs(tick) for tick in ticks if tick != 0]
    small, large = min(sizes, default=1.0), max(sizes, default=1.0)
    apart = min((abs(b - a) for a, b in pairwise(ticks)), default=small)
    scientific = large >= 1e6 or large < 1e-3 or apart < 1e-6 or (small < 1e-3 and large >= 10 * small)
    texts: list[str] = []
    for digits in range(17 if scientific else 8):
        texts = [_scientific(one, digits) if scientific else f"{one + 0.0:,.{digits}f}" for one in ticks]
        if all(abs(float(text.replace(",", "")) - one) <= 0.01 * apart for text, one in zip(texts, ticks, strict=True)):
            break
    return texts


def _scientific(value: float, digits: int) -> str:
    return "0" if value == 0 else f"{value:.{digits}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def tried(scale: Scale, values: Sequence[float], room: float) -> list[float]:
    """Ticks at the values that were tried, if their labels have `room` pixels each; else round ones."""
    places = sorted(map(scale, values))
    return list(values) if all(b - a >= room for a, b in pairwise(places)) else scale.ticks()


def short(text: str, most: int = _LABEL) -> str:
    """A text that fits, its end replaced by an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


@final
class Frame:
    """A plot with a horizontal and a vertical axis; marks are added and `draw` gives the whole."""

    def __init__(self, title: str, *, width: float = 420, height: float = 260, left: float = 58) -> None:
        self.title, self.width, self.height = title, width, height
        self.left, self.right, self.top, self.bottom = left, width - 12.0, 14.0, height - 40.0
        self._marks: list[Part] = []

    def across(self, values: Sequence[float], *, logarithmic: bool = False, room: float = 0.04) -> Scale:
        """A horizontal scale over the values."""
        return spread(values, self.left, self.right, logarithmic=logarithmic, room=room)

    def upward(self, values: Sequence[float], *, room: float = 0.06) -> Scale:
        """A vertical scale over the values."""
        return spread(values, self.bottom, self.top, room=room)

    def add(self, *marks: Part) -> None:
        self._marks += marks

    def axes(self, x: Scale, y: Scale, x_name: str, y_name: str, at: Sequence[float] = ()) -> None:
        """Grid, ticks and names of both axes; `at`: values that the horizontal one has its ticks at, if they fit."""
        self.y_axis(y, y_name)
        ticks = tried(x, at, _ROOM) if at else x.ticks()
        for tick, label in zip(ticks, tick_labels(ticks), strict=True):
            place = x(tick)
            self.add(element("line", x1=place, x2=place, y1=self.top, y2=self.bottom, class_="grid"))
            self.add(text(place, self.bottom + 15, label, "middle"))
        self.add(text((self.left + self.right) / 2, self.height - 6, short(x_name, 50), "middle", "name", title=x_name))

    def y_axis(self, y: Scale, name: str) -> None:
        """Grid, ticks and name of the vertical axis."""
        ticks = y.ticks()
        for tick, label in zip(ticks, tick_labels(ticks), strict=True):
            place = y(tick)
            self.add(element("line", x1=self.left, x2=self.right, y1=place, y2=place, class_="grid"))
            self.add(text(self.left - 6, place + 4, label, "end"))
        turned = f"rotate(-90 12 {(self.top + self.bottom) / 2:.0f})"
        middle = (self.top + self.bottom) / 2
        self.add(element("text", name, x=12, y=middle, transform=turned, text_anchor="middle", class_="name"))

    def labels(self, places: Sequence[float], names: Sequence[str]) -> None:
        """Names under the places of a horizontal axis without numbers."""
        most = max(3, int((self.right - self.left) / max(len(places), 1) / 6.2))
        for place, name in zip(places, names, strict=True):
            self.add(text(place, self.bottom + 15, short(name, most), "middle", title=name))

    def references(self, y: Scale, found: dict[str, float]) -> None:
        """Horizontal lines at the results of answering without reading, if in sight."""
        inside = sorted(
            (y(value), f"{name} {said(value)}") for name, value in found.items() if y.low <= value <= y.high
        )
        labels: list[tuple[float, str]] = []
        for place, label in inside:
            self.add(element("line", x1=self.left, x2=self.right, y1=place, y2=place, class_="reference"))
            if labels and place - labels[-1][0] < _APART:  # two labels would lie on each other
                labels[-1] = (labels[-1][0], f"{labels[-1][1]}, {label}")
            else:
                labels.append((place, label))
        self.add(*(text(self.right - 2, place - 4, label, "end", "reference") for place, label in labels))

    def marks(self) -> Markup:
        """All that was added."""
        return joined(*self._marks)

    def draw(self) -> Markup:
        """The picture with its title for those who cannot see it."""
        return svg(self.width, self.height, self.title, *self._marks)


def svg(width: float, height: float, title: str, *marks: Part) -> Markup:
    """A picture that scales with its box."""
    box = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", element("title", title), *marks, viewBox=box, role="img", width=width, height=height)


def text(x: float, y: float, content: str, anchor: str = "start", class_: str | None = None, title: str = "") -> Markup:
    """A text in a picture; `title` is its whole where it is cut."""
    whole = element("title", title) if title and title != content else None
    return element("text", whole, content, x=x, y=y, text_anchor=anchor, class_=class_)


def path(points: Sequence[tuple[float, float]], **attributes: Any) -> Markup:
    """A line through points."""
    return element("polyline", points=" ".join(f"{x:.0f},{y:.0f}" for x, y in points), **attributes)


def dot(x: float, y: float, kind: str, *, key: str | None = None, size: float = 4.0) -> Markup:
    """A mark whose form, and not only its colour, says the kind of its row.

    What row it is, by its `key`, the page's script says when it is pointed at: once a row and not once a mark.
    """
    common = {"class_": f"mark {kind}", "data_row": key}
    match kind:
        case "best":
            corners = [_corner(x, y, size * 1.9 if turn % 2 == 0 else size * 0.8, turn) for turn in range(10)]
            return element("path", d=f"M{'L'.join(corners)}Z", **common)
        case "good":
            to = round(size * 1.3, 1)
            d = f"M{x:.1f} {y - to:.1f}l{to} {to}l{-to} {to}l{-to} {-to}Z"
            return element("path", d=d, **common)
        case "early":
            d = f"M{x - size:.1f} {y - size:.1f}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"
            return element("path", d=d, **common)
        case "other" | "none":
            return element("circle", cx=x, cy=y, r=size, **common)
    raise GuardError(f"no mark for rows of kind {kind}")


def _corner(x: float, y: float, radius: float, turn: int) -> str:
    angle = math.pi * (turn / 5 - 0.5)
    return f"{x + radius * math.cos(angle):.1f} {y + radius * math.sin(angle):.1f}"


def figure(caption: str, picture: Part, note: str = "", **attributes: Any) -> Markup:
    """A picture with its caption and, in small print, how to read it."""
    small = element("small", note) if note else None
    return element("figure", element("figcaption", element("b", caption), joined(small)), picture, **attributes)
