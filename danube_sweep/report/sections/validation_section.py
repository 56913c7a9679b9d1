"""The validation rows under the best row: its classes, its calibration, and single rows with their texts."""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from danube_sweep.report.markup import Markup, Part, element, joined
from danube_sweep.report.page_data import Report
from danube_sweep.report.pictures.axes import figure, short
from danube_sweep.report.row_predictions import Seen
from danube_sweep.report.sections.opened_row import calibration_plot, class_name, confused_pairs
from danube_sweep.report.validation_rows import ValidationRows
from danube_sweep.results.ranking_table import named

_MOST_CLASSES: Final = 40
_LONGEST: Final = 600
"""Signs of a text that are shown."""


def validation_section(report: Report) -> Markup | None:
    """None where the best row has no readable predictions."""
    best, rows = report.answer.best, report.validation
    if best is None or rows is None:
        return None
    several = f"Over {len(best.used)} trials together." if len(best.used) > 1 else ""
    figures = [] if best.seen is None or not best.seen.classes else figures_of(best.seen, several)
    one = f"Single rows are those of {rows.trials[0].trial}."
    texts = "" if rows.texts is not None else f" No texts, as {rows.no_texts}."
    lists = [
        _list("Most wrong", "rows with the highest loss", rows, rows.worst),
        _list("Most disputed", "rows whose two likeliest classes are closest", rows, rows.disputed),
    ]
    return element(
        "section",
        element("h2", "Validation rows"),
        element("p", f"The best row: {named(best.row)}. {one}{texts}", class_="quiet"),
        element("div", *figures, class_="figures") if figures else None,
        *lists,
        _side_by_side(report, rows),
        id="validation",
    )


def figures_of(seen: Seen, several: str) -> list[Markup]:
    """The classes, their confusions and the calibration of some predictions."""
    return [
        figure("Each class", _classes(seen), several),
        figure("Confused classes", confused_pairs(seen), several),
        figure(
            "Calibration",
            calibration_plot(seen),
            f"On the line: as often right as it is sure. {several}",
            class_="small",
        ),
    ]


def _classes(seen: Seen) -> Markup:
    """Precision, recall and F1 of each class, of the largest classes."""
    counts_CC = seen.confusions_CC
    right_C, rows_C, said_C = np.diag(counts_CC), counts_CC.sum(axis=1), counts_CC.sum(axis=0)
    order = np.argsort(-rows_C, kind="stable").tolist()
    lines = []
    for place in order[:_MOST_CLASSES]:
        right, rows, said = int(right_C[place]), int(rows_C[place]), int(said_C[place])
        shares = (_share(right, said), _share(right, rows), _share(2 * right, rows + said))
        name = element("th", class_name(seen.classes[place]), scope="row")
        lines.append(element("tr", name, *(element("td", one, class_="number") for one in (*shares, f"{rows:,}"))))
    titles = ("class", "precision", "recall", "F1", "rows")
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    more = len(order) - _MOST_CLASSES
    rest = element("p", f"and {more} smaller classes", class_="quiet") if more > 0 else None
    return joined(_scroll("Each class", element("table", head, *lines, class_="diff")), rest)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "\N{EN DASH}"


def _list(title: str, about: str, rows: ValidationRows, places: Sequence[int]) -> Markup | None:
    if not places:
        return None
    best = rows.trials[0]
    answered = any(best.answers)
    titles = ["id", *(["text"] if rows.texts else []), "label", *(["answer"] if answered else []), "loss"]
    head = element("tr", *(element("th", one, scope="col") for one in titles))
    lines = []
    for place in places:
        cells: list[Part] = [element("td", element("bdi", short(rows.ids[place], 40)))]
        if rows.texts:
            cells.append(element("td", element("bdi", short(rows.texts[place], _LONGEST)), class_="text"))
        cells.append(element("td", element("bdi", short(rows.labels[place], 60)), class_="label"))
        if answered:
            cells.append(element("td", element("bdi", short(best.answers[place], 120)), class_="answer"))
        lines.append(element("tr", *cells, element("td", f"{best.losses[place]:.3f}", class_="number")))
    table = element("table", head, *lines, class_="rows")
    return joined(element("h3", title, element("span", f" {about}", class_="quiet")), _scroll(title, table))


def _scroll(title: str, table: Markup) -> Markup:
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def _side_by_side(report: Report, rows: ValidationRows) -> Markup | None:
    """Two trials on the rows whose answers differ most; drawn by the page's script from the data here."""
    if len(rows.trials) < 2:
        return None
    names = {one.key: f"{one.row.rank}: {named(one.row)}" for one in report.shown}
    options = [element("option", short(names[one.key], 80), value=place) for place, one in enumerate(rows.trials)]
    data = {
        "ids": [short(one, 40) for one in rows.ids],
        "labels": [short(one, 60) for one in rows.labels],
        "texts": None if rows.texts is None else [short(one, _LONGEST) for one in rows.texts],
        "rows": rows.unlike,
        "trials": [
            [
                [one.losses[place] for place in rows.unlike],
                [short(one.answers[place], 80) for place in rows.unlike],
            ]
            for one in rows.trials
        ],
    }
    said = "rows whose loss differs most between the trials of this sweep"
    picks = [
        element("label", f"{title} ", element("select", *options, id=f"side-{name}"))
        for title, name in (("Left", "a"), ("Right", "b"))
    ]
    return joined(
        element("h3", "Two trials side by side", element("span", f" {said}", class_="quiet")),
        element("div", *picks, class_="filter"),
        _scroll("Two trials side by side", element("table", id="sides", class_="rows")),
        embedded("sides-data", data),
    )


def embedded(name: str, data: object) -> Markup:
    """Data for the page's script: a block of JSON that nothing in it can end."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return element("script", Markup(text), type="application/json", id=name)
