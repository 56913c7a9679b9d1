"""The attempts in each slot over time."""

from typing import Final

from danube_sweep.report.markup import Markup, Part, element
from danube_sweep.report.page_data import Report
from danube_sweep.report.pictures.axes import Scale, figure, short, svg, text
from danube_sweep.report.slot_times import Bar, Timeline
from danube_sweep.terminal.screen import duration

_WIDTH: Final = 880.0
_LEFT: Final = 96.0
_BAR: Final = 20.0
_THIN: Final = 12.0
_GAP: Final = 8.0
_STRIPED: Final = ("pruned", "paused", "interrupted", "preempted")
_BAD: Final = ("failed", "oom", "diverged", "killed", "timeout", "disk_full", "invalid")


def slot_timeline(report: Report) -> Markup | None:
    """A lane for every slot with a bar for every attempt; trials of a pack lie on one another. None without any."""
    found = report.timeline
    if not found.bars:
        return None
    start = min(bar.start_s for bar in found.bars)
    end = max(bar.end_s for bar in found.bars)
    x = Scale(0.0, max(end - start, 1.0), _LEFT, _WIDTH - 12)
    tops = _tops(found)
    height = tops[-1] + 30
    marks = [*_ticks(x, height - 30), *_names(found, tops)]
    keys = {trial.name: shown.key for shown in report.shown for trial in shown.trials}
    rows = {trial.name: shown.kind for shown in report.shown for trial in shown.trials}
    for bar in found.bars:
        marks.append(_bar(bar, x, tops[bar.lane], start, found, keys.get(bar.trial), rows.get(bar.trial, "")))
    packs = any(bar.pack for bar in found.bars)
    note = f"{_total(found)} of training in {duration(end - start)}."
    note += " Overlapping bars trained together in a pack and share memory and seconds." if packs else ""
    return figure("Slots over time", svg(_WIDTH, height, "slots over time", *marks), note, class_="wide")


def _total(found: Timeline) -> str:
    # A pack's trials share its seconds.
    together: dict[str, float] = {}
    for bar in found.bars:
        if bar.pack:
            together[bar.pack] = max(bar.seconds, together.get(bar.pack, 0.0))
    return duration(sum(bar.seconds for bar in found.bars if not bar.pack) + sum(together.values()))


def _tops(found: Timeline) -> list[float]:
    tops, here = [], 8.0
    for packed in found.packed:
        tops.append(here)
        here += (_BAR if packed == 1 else packed * _THIN) + _GAP
    return [*tops, here]


def _names(found: Timeline, tops: list[float]) -> list[Part]:
    several = len(set(found.lanes)) > 1
    counted: dict[str, int] = {}
    names: list[Part] = []
    for lane, host in enumerate(found.lanes):
        counted[host] = counted.get(host, -1) + 1
        label = f"{host} slot {counted[host]}" if several else f"slot {counted[host]}"
        middle = (tops[lane] + tops[lane + 1] - _GAP) / 2 + 4
        names.append(text(_LEFT - 8, middle, short(label, 15), "end", title=label))
    return names


def _ticks(x: Scale, bottom: float) -> list[Part]:
    found: list[Part] = []
    for tick in _round_times(x.high):
        place = x(tick)
        found.append(element("line", x1=place, x2=place, y1=4, y2=bottom + 4, class_="grid"))
        found.append(text(place, bottom + 20, duration(tick), "middle"))
    return found


def _round_times(most_s: float) -> list[float]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    step = next((one for one in steps if most_s / one <= 8), 86400 * max(1, round(most_s / 86400 / 8)))
    return [float(number * step) for number in range(int(most_s / step) + 1)]


def _bar(bar: Bar, x: Scale, top: float, start_s: float, found: Timeline, key: str | None, kind: str) -> Markup:
    left, right = x(bar.start_s - start_s), x(bar.end_s - start_s)
    packed = found.packed[bar.lane] > 1
    # The trials of a pack touch: they are one bar with a stripe each.
    y, high = (top + bar.place * _THIN, _THIN - 0.5) if packed and bar.pack else (top, _BAR)
    look = "bad" if bar.state in _BAD else "striped" if bar.state in _STRIPED else bar.state
    said = f"{bar.trial}: {bar.state} after {duration(bar.seconds)}" + (f", pack {bar.pack}" if bar.pack else "")
    wide = max(1.5, right - left - (1.0 if right - left > 4 else 0.0))
    title = element("title", said)
    classes = f"slot {look} {'best' if kind == 'best' else ''}".strip()
    drawn = element("rect", title, x=left, y=y, width=wide, height=high, rx=2, class_=classes, data_row=key)
    number = bar.trial.rpartition("/")[2].partition("_")[0]
    if wide < 7 * len(number) + 6 or high < _THIN - 1:
        return drawn
    label = text(left + 5, y + high / 2 + 4, number, class_=f"slot-label {look}")
    return Markup(drawn + label)
