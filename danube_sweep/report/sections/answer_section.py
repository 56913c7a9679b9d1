"""The first part of the page: the configuration to use, how certain that is, and open questions."""

from dataclasses import dataclass

from danube_sweep.report.markup import Markup, Part, element, joined
from danube_sweep.report.page_data import Cheaper, Report, Shown
from danube_sweep.report.pictures.axes import said, spread, svg, text, tick_labels
from danube_sweep.results.ranking_table import named, nothing_learned_statement, number, shown
from danube_sweep.terminal.screen import human


def answer_section(report: Report) -> Markup:
    """The answer, or its substitute while no trial has finished."""
    best = report.answer.best
    if best is None:
        return element("section", element("h2", "The answer"), _none_yet(report), _unknown(report), id="answer")
    if not report.answer.learned:
        return _nothing_learned(report, best)
    doubts = joined(*(element("p", element("b", line), class_="warn") for line in report.answer.nothing_learned))
    card = element("div", doubts, _chosen(best), _result(report, best), _command(report), class_="card main")
    sides = joined(_cheaper(report), _unknown(report))
    return element("section", element("h2", "The answer"), card, element("div", sides, class_="pair"), id="answer")


def _nothing_learned(report: Report, best: Shown) -> Markup:
    """The headline where the best row does not beat answering without reading: why that may be, and no command."""
    told, prior, doubts = (
        nothing_learned_statement(report.ranking),
        report.ranking.prior,
        report.answer.nothing_learned[1:],
    )
    reasons = [element("li", f"{reason[0].upper()}{reason[1:]}.") for reason in (prior.reasons if prior else [])]
    why = joined(element("h3", "Why it may be so"), element("ul", *reasons)) if reasons else None
    more = joined(*(element("p", line, class_="warn") for line in doubts))
    card = element("div", element("p", element("b", told)), more, why, class_="card main none")
    first_row = element(
        "div", element("h3", "The row that comes first"), _chosen(best), _result(report, best), class_="card"
    )
    heading = element("h2", "Nothing was learned", class_="warn")
    return element("section", heading, card, element("div", first_row, _unknown(report), class_="pair"), id="answer")


def _none_yet(report: Report) -> Markup:
    if not report.shown:
        said_ = "This sweep has no trials yet. Write the report again later."
    elif report.under_way:
        said_ = "No trial has finished yet. The results so far are below. Write the report again later."
    else:
        said_ = "No trial has finished, so there is nothing to recommend. The ranking lists the reasons."
    return element("p", said_, class_="card main none")


def _chosen(best: Shown) -> Markup:
    chips = [
        element(
            "span", element("span", key, class_="key"), " ", element("bdi", shown(value) or "default"), class_="chip"
        )
        for key, value in best.row.values.items()
    ]
    return element("p", joined(*chips) if chips else named(best.row), class_="chosen")


def _result(report: Report, best: Shown) -> Markup:
    sure = best.row.own_interval
    facts: list[Part] = [
        element("span", number(best.row.mean or 0.0), class_="big"),
        element("span", report.ranking.metric, f" ({report.ranking.goal})", class_="of"),
    ]
    if sure is not None:
        facts.append(element("span", f"95 %: {_interval(sure)}", class_="sure"))
    small = [report.ranking.covers or "no interval; the notes of the ranking give the reason"]
    if best.memory_gib is not None:
        small.append(f"{best.memory_gib:.2f} GiB{' predicted (trained in a pack)' if best.shared else ''}")
    if best.seconds is not None:
        small.append(
            f"{human(best.seconds)} of training and validation{' (its share of a pack)' if best.shared else ''}"
        )
    return joined(
        element("p", joined(*facts, by=" "), class_="result"),
        _standing(report, best),
        element("p", " · ".join(part for part in small if part), class_="quiet"),
    )


def _interval(ends: tuple[float, float]) -> str:
    return " to ".join(number(end) for end in ends)


def _standing(report: Report, best: Shown) -> Markup:
    """The best row between the other rows and the results of answering without reading."""
    ends = best.row.own_interval
    means = [one.row.mean for one in report.shown if one.row.mean is not None]
    width = 440.0
    x = spread([*means, *report.references.values(), *(ends or ())], 16, width - 16, room=0.03)
    labels = [_Label(f"{name} {said(value)}", x(value), width) for name, value in report.references.items()]
    heights = _heights(labels)
    line = 21.0 + max(heights, default=0)
    marks: list[Part] = [element("line", x1=16, x2=width - 16, y1=line, y2=line, class_="axis")]
    for tick, tick_label in zip(x.ticks(6), tick_labels(x.ticks(6)), strict=True):
        marks.append(text(x(tick), line + 26, tick_label, "middle"))
        marks.append(element("line", x1=x(tick), x2=x(tick), y1=line, y2=line + 10, class_="grid"))
    for label, height in zip(labels, heights, strict=True):
        marks.append(element("line", x1=label.x, x2=label.x, y1=height, y2=line + 8, class_="reference"))
        marks.append(text(label.text_x, height, label.words, label.anchor, "reference"))
    for one in reversed(report.shown):
        if one.row.mean is not None:
            ends_at = {"x1": x(one.row.mean), "x2": x(one.row.mean), "y1": line - 7, "y2": line + 7}
            marks.append(element("line", **ends_at, class_=f"tick {one.kind}", data_row=one.key))
    if ends is not None:
        low, high = max(x(ends[0]), 2.0), min(x(ends[1]), width - 2)
        marks.append(element("rect", x=low, y=line - 3, width=max(high - low, 1.0), height=6, rx=3, class_="interval"))
    marks.append(element("circle", cx=x(best.row.mean or 0.0), cy=line, r=6, class_="mark best"))
    return element("div", svg(width, line + 34, "where the best stands", *marks), class_="standing")


@dataclass(frozen=True)
class _Label:
    """The name of a reference, beside its mark at `x` on an axis of `width`."""

    words: str
    x: float
    width: float

    @property
    def anchor(self) -> str:
        return "end" if self.x > self.width / 2 else "start"

    @property
    def text_x(self) -> float:
        return self.x - 4 if self.anchor == "end" else self.x + 4

    @property
    def ends(self) -> tuple[float, float]:
        """Where the text begins and ends, generously."""
        length = 6.8 * len(self.words)
        return (self.text_x - length, self.x) if self.anchor == "end" else (self.x, self.text_x + length)


def _heights(labels: list[_Label]) -> list[float]:
    """The baseline of each label, so that none covers another or its mark: as few lines as that takes."""
    lines: list[list[_Label]] = []
    heights = []
    for label in labels:
        free = [all(label.ends[0] > one.ends[1] or label.ends[1] < one.ends[0] for one in line) for line in lines]
        place = free.index(True) if True in free else len(lines)
        if place == len(lines):
            lines.append([])
        lines[place].append(label)
        heights.append(8.0 + 11 * place)
    return heights


def _command(report: Report) -> Markup | None:
    """The command that trains the best one again, and those that use it."""
    if report.answer.command is None:
        return None
    then = [_copied(command, f"then-{place}") for place, command in enumerate(report.answer.then)]
    title = element("p", "Then, with your rows for test.csv:", class_="then") if then else None
    return element("div", _copied(report.answer.command, "command"), title, *then)


def _copied(command: str, name: str) -> Markup:
    button = element("button", "Copy", type="button", data_copy=name, aria_describedby=name)
    code = element("code", command, id=name, tabindex=0)
    return element("div", code, button, element("span", role="status", class_="copied"), class_="command")


def _cheaper(report: Report) -> Markup:
    title = element("h3", "As good, but cheaper")
    count, found = report.answer.as_good, report.answer.cheaper
    if not count:
        said_ = "None: every other configuration with an interval is worse by more than chance."
        compared = any(one.row.interval is not None for one in report.shown)
        lines: Part = element("p", said_ if compared else "Unknown: no difference has an interval.")
    elif not found:
        said_ = (
            f"{count} configuration{'s are' if count > 1 else ' is'} as good (95 %), and none saves 5 % of "
            "memory or time."
        )
        lines = element("p", said_)
    else:
        lines = joined(
            element("p", f"{count} tied with the best (95 %); {len(found)} of these cost less:"),
            element("ul", *map(_saving, found[:5])),
        )
    return element("div", title, lines, class_="card")


def _saving(one: Cheaper) -> Markup:
    link = element("a", named(one.shown.row), href=f"#{one.shown.key}", data_open=one.shown.key)
    return element("li", link, f": {number(one.shown.row.mean or 0.0)}, ", element("b", one.saved))


def _unknown(report: Report) -> Markup:
    sentences = report.answer.unknown or ["None that the sweep itself shows."]
    items = [element("li", sentence) for sentence in sentences]
    return element("div", element("h3", "Open questions of this sweep"), element("ul", *items), class_="card")
