"""An opened row of the ranking: its choices against the best one's, its curve, confusions and calibration."""

import os.path
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from danube_sweep.report.learning_curves import curve_metric
from danube_sweep.report.markup import Markup, Part, element, joined
from danube_sweep.report.page_data import Report, Shown
from danube_sweep.report.pictures.axes import Frame, dot, figure, path, short
from danube_sweep.report.pictures.curve_pictures import small_curve
from danube_sweep.report.row_predictions import Seen
from danube_sweep.results.ranking_table import number, shown
from danube_sweep.results.trial_results import StoredTrial

_MOST_CLASSES: Final = 10
_MOST_PAIRS: Final = 10
_MOST_LINES: Final = 30
_NOT_A_CHOICE: Final = ("seed", "name", "tracking.", "data.fold")
_CALIBRATION: Final = "calibration"
_WANDB: Final = "https://wandb.ai"


def opened(report: Report, one: Shown) -> Markup:
    """The inside of an opened row."""
    parts = [_choices(report, one), _curve(report, one), *_seen(one), _trials(report, one)]
    return element("div", *parts, class_="opened")


# ------------------------------------------------------------------------------------------------------- choices


def _choices(report: Report, one: Shown) -> Markup:
    best = report.answer.best
    if best is None or best is one:
        lines = [(key, shown(value) or "default") for key, value in one.row.values.items()]
        rows = [
            element("tr", element("th", key, scope="row"), element("td", element("bdi", said))) for key, said in lines
        ]
        title = "This is the best one" if best is one else "Its choices"
        return figure(title, element("table", *rows, class_="diff") if rows else None)
    found = list(_different(one.trials[0].config, best.used[0].config))
    head = element("tr", element("th", "key"), element("th", "here"), element("th", "best"))
    rows = [
        element(
            "tr", element("th", key, scope="row"), element("td", element("bdi", a)), element("td", element("bdi", b))
        )
        for key, a, b in found[:_MOST_LINES]
    ]
    more = f"and {len(found) - _MOST_LINES} more in config.yaml" if len(found) > _MOST_LINES else ""
    table = element("table", head, *rows, class_="diff") if rows else element("p", "no difference in the config")
    return figure("Differences from the best config", table, more)


def _different(here: dict[str, Any], best: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys([*here, *best]):
        if here.get(key) != best.get(key) and not key.startswith(_NOT_A_CHOICE):
            yield key, _said(here, key), _said(best, key)


def _said(config: dict[str, Any], key: str) -> str:
    if key not in config:
        return "\N{EN DASH}"
    value = config[key]
    return "null" if value is None else shown(value)


# -------------------------------------------------------------------------------- curve, confusions, calibration


def _curve(report: Report, one: Shown) -> Markup | None:
    named = next((trial for trial in (*one.used, *one.trials) if trial.name in report.curves), None)
    if named is None:
        return None
    metric = curve_metric(report.ranking.metric)
    several = f"Of {named.name}." if len(one.trials) > 1 else ""
    return figure("Learning curve", small_curve(report.curves[named.name], metric, report.references), several)


def _seen(one: Shown) -> list[Markup]:
    seen = one.seen
    if seen is None or not seen.classes:
        return []
    pooled = f"Over {len(one.used)} trials together." if len(one.used) > 1 else ""
    matrix = _confusions(seen) if len(seen.classes) <= _MOST_CLASSES else confused_pairs(seen)
    return [figure("Confusions", matrix, pooled), figure("Calibration", calibration_plot(seen), pooled)]


def _confusions(seen: Seen) -> Markup:
    """A table of actual by predicted, shaded by the share of its row."""
    top = element(
        "tr", element("td", "actual \\ said"), *(element("th", class_name(one), scope="col") for one in seen.classes)
    )
    rows = []
    for name, counts in zip(seen.classes, seen.confusions_CC.tolist(), strict=True):
        total = max(sum(counts), 1)
        cells = [element("td", count, class_=f"c{round(9 * count / total)}") for count in counts]
        rows.append(element("tr", element("th", class_name(name), scope="row"), *cells))
    return element("table", top, *rows, class_="confusions")


def class_name(name: str) -> Markup:
    """The name of a class, cut where it is long."""
    return element("bdi", short(name, 16), title=name if len(name) > 16 else None)


def confused_pairs(seen: Seen) -> Markup:
    """The pairs of classes that are taken for one another most often."""
    counts = seen.confusions_CC.copy()
    right, total = int(counts.trace()), int(counts.sum())
    for place in range(len(counts)):
        counts[place, place] = 0
    order = counts.ravel().argsort(kind="stable")[::-1][:_MOST_PAIRS].tolist()
    rows = []
    for actual, said in (divmod(place, len(counts)) for place in order):
        if count := int(counts[actual, said]):
            names = (class_name(seen.classes[actual]), class_name(seen.classes[said]))
            rows.append(element("tr", *(element("td", name) for name in names), element("td", count, class_="number")))
    head = element("tr", element("th", "actual"), element("th", "taken for"), element("th", "rows"))
    said_ = f"{right} of {total} right; the most confused pairs of {len(counts)} classes"
    return joined(element("p", said_, class_="quiet"), element("table", head, *rows, class_="diff"))


def calibration_plot(seen: Seen) -> Markup:
    """Accuracy by confidence; its axes are those of `shared_pictures`."""
    curve, frame = seen.calibration, Frame(_CALIBRATION, width=260, height=200, left=56)
    if curve is not None:
        x, y = frame.across([0.0, 1.0], room=0.0), frame.upward([0.0, 1.0], room=0.0)
        places = [(x(a), y(b)) for a, b in zip(curve.confidence_B.tolist(), curve.accuracy_B.tolist(), strict=True)]
        sizes = [2 + 3 * (rows / max(int(curve.rows_B.max()), 1)) ** 0.5 for rows in curve.rows_B.tolist()]
        frame.add(element("use", href=f"#{_CALIBRATION}"), path(places, class_="line best"))
        frame.add(*(dot(*place, "other", size=round(size, 1)) for place, size in zip(places, sizes, strict=True)))
    return frame.draw()


def shared_pictures() -> Markup:
    """The shared part of all rows' pictures, drawn once: the axes of a calibration."""
    frame = Frame(_CALIBRATION, width=260, height=200, left=56)
    x, y = frame.across([0.0, 1.0], room=0.0), frame.upward([0.0, 1.0], room=0.0)
    frame.axes(x, y, "confidence", "accuracy")
    frame.add(path([(x(0), y(0)), (x(1), y(1))], class_="reference"))
    group = element("g", frame.marks(), id=_CALIBRATION)
    return element("svg", element("defs", group), width=0, height=0, class_="unseen", aria_hidden="true")


# --------------------------------------------------------------------------------------------------------- trials


def _trials(report: Report, one: Shown) -> Markup:
    items = [_trial(report, trial) for trial in one.trials]
    count = len(items)
    note = "Trained in a pack: memory and seconds were shared." if one.shared else ""
    return figure("Trial" if count == 1 else f"{count} trials", element("ul", *items, class_="trials"), note)


def _trial(report: Report, trial: StoredTrial) -> Markup:
    place = os.path.relpath(trial.folder.path, report.beside)
    link = element("a", element("bdi", trial.name), href=quote(f"{place}/"))
    value = trial.number(report.ranking.metric)
    facts: list[Part] = [trial.state, "" if value is None else f" {number(value)}"]
    if trial.reason:
        facts.append(element("span", f": {trial.reason}", class_="reason"))
    return element("li", link, element("span", " ", *facts, class_="quiet"), _wandb(trial))


def _wandb(trial: StoredTrial) -> Markup | None:
    """A link to the run, if it is known to be online; otherwise its known facts."""
    project, entity = trial.config.get("tracking.project"), trial.config.get("tracking.entity")
    runs = [one.name for one in (trial.folder.path / "wandb").glob("*run-*")]
    if not runs or not project:
        return None
    if all(name.startswith("offline-run-") for name in runs):
        return element("span", " W&B: logged offline; upload with wandb sync", class_="quiet")
    if not entity or trial.hash is None:
        return element("span", f" W&B: run {trial.hash} of project {project}", class_="quiet")
    address = f"{_WANDB}/{quote(str(entity), safe='')}/{quote(str(project), safe='')}/runs/{quote(trial.hash)}"
    return joined(" ", element("a", "W&B", href=address, rel="noreferrer"))
