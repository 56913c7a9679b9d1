"""The pictures, with the legend of their marks."""

from typing import Final

from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report
from danube_sweep.report.pictures.axes import dot
from danube_sweep.report.pictures.cost_pictures import predicted_memory, quality_against_cost
from danube_sweep.report.pictures.curve_pictures import learning_curves
from danube_sweep.report.pictures.factor_pictures import importances, one_factor
from danube_sweep.report.pictures.progress_pictures import best_so_far
from danube_sweep.report.pictures.timeline import slot_timeline

_CURVES: Final = "Learning curves"


def pictures_section(report: Report) -> Markup:
    """Every picture that the sweep has something for."""
    groups = [
        ("Effects of the choices", [importances(report) if report.factors else None, one_factor(report)]),
        ("Best so far", [best_so_far(report)]),
        ("What quality costs", [quality_against_cost(report), predicted_memory(report)]),
        (_CURVES, [learning_curves(report)]),
        ("When it ran", [slot_timeline(report)]),
    ]
    drawn = [_group(title, [one for one in pictures if one]) for title, pictures in groups]
    if not any(drawn):
        return element("section", element("h2", "Pictures"), element("p", "Nothing to draw yet."), id="pictures")
    return element("section", element("h2", "Pictures"), _legend(), *drawn, id="pictures")


def _group(title: str, pictures: list[Markup]) -> Markup | None:
    if not pictures:
        return None
    heading = element("h3", title) if title else None
    return joined(heading, element("div", *pictures, class_="figures even" if title == _CURVES else "figures"))


def _legend() -> Markup:
    names = {
        "best": "the best",
        "good": "tied with the best (95 %)",
        "other": "worse than the best",
        "early": "ended early",
    }
    items = [
        element("li", element("svg", dot(8, 8, kind), width=16, height=16, aria_hidden="true"), " ", name)
        for kind, name in names.items()
    ]
    return element("ul", *items, class_="legend")
