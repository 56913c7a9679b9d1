"""The page of an ensemble: what it is worth on unseen rows, its members, and its answers to the validation rows."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from danube_sweep.report.document import document, header
from danube_sweep.report.markup import Markup, element
from danube_sweep.report.row_predictions import read_seen
from danube_sweep.report.sections.validation_section import figures_of
from danube_sweep.results.ensemble.ensemble_command import SINGLE
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.files import write_text
from danube_sweep.storage.refit_file import read_refit


def write_ensemble_page(folder: EnsembleFolder, file: Path) -> int:
    """Draws an ensemble into `file`; returns the number of its members. Raises CheckpointError, DiskError."""
    members = folder.read()
    sections = {
        "Answer": _answer(folder),
        "Members": _members(members, file.parent),
        "Validation": _validation(folder),
    }
    drawn = {name: found for name, found in sections.items() if found is not None}
    runs = sum(len(member.runs) for member in members)
    said = [f"{len(members)} members, {runs} runs", f"drawn {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]
    title = "/".join(folder.path.resolve().parts[-2:])
    write_text(
        file, document(f"{title}: ensemble report", header("Ensemble report", title, said, drawn), drawn.values())
    )
    return len(members)


def _answer(folder: EnsembleFolder) -> Markup | None:
    scores, chosen = folder.read_scores()
    if folder.refitted and (promised := read_refit(folder.path)):
        measured = folder.predictions.is_file()
        left = "The members were trained on all rows, so no row is left to measure them on."
        if any(len(one.runs) > 1 for one in folder.read()):
            left = "Each row is out of fold for a model: danube-sweep oof joins the answers."
        lines = [
            element("p", "The rows are out of fold: see below." if measured else left, class_="quiet"),
            *(element("p", f"{one['row']}: the settings promised {one['promised']}") for one in promised),
        ]
        return element("section", element("h2", "Answer"), *lines, id="answer")
    if not scores:
        return None
    titles = ("method", "loss on unseen rows", "vs best single", "95 % interval")
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    lines = []
    for name, found in scores.items():
        low, high = found["difference"] - found["half"], found["difference"] + found["half"]
        apart = ["", ""] if name == SINGLE else [f"{found['difference']:+.4f}", f"{low:+.4f} .. {high:+.4f}"]
        cells = [element("td", one, class_="number") for one in (f"{found['loss']:.4f}", *apart)]
        marked = f"{name} (chosen)" if name == chosen else name
        lines.append(element("tr", element("th", marked, scope="row"), *cells))
    return element(
        "section",
        element("h2", "Answer"),
        element("p", f"Predict with: danube-sweep predict {folder.path} test.csv -o submission.csv"),
        element("table", head, *lines, class_="diff"),
        element("p", "Each method chose on one half of the rows and was scored on the other.", class_="quiet"),
        id="answer",
    )


def _members(members: Sequence[Weighted], beside: Path) -> Markup:
    head = element("tr", *(element("th", one, scope="col") for one in ("member", "weight", "temperature", "runs")))
    lines = []
    for member in sorted(members, key=lambda one: -one.weight):
        links = [element("a", run.name, href=_link(run, beside)) for run in member.runs]
        spaced = [part for link in links for part in (link, " ")]
        cells = [element("td", one, class_="number") for one in (f"{member.weight:.3f}", f"{member.temperature:.2f}")]
        name = element("th", element("bdi", member.name), scope="row")
        lines.append(element("tr", name, *cells, element("td", *spaced)))
    return element("section", element("h2", "Members"), element("table", head, *lines, class_="diff"), id="members")


def _link(run: Path, beside: Path) -> str:
    return quote(os.path.relpath(run.resolve(), beside.resolve()), safe="/")


def _validation(folder: EnsembleFolder) -> Markup | None:
    seen = read_seen([folder.predictions]) if folder.predictions.is_file() else None
    if seen is None:
        return None
    meaning = "Each is out of fold" if folder.refitted else "They chose the ensemble, so these figures are too good"
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in seen.recomputed.items())
    figures = figures_of(seen, "") if seen.classes else []
    return element(
        "section",
        element("h2", "Validation rows"),
        element("p", f"{seen.rows:,} rows: {numbers}. {meaning}."),
        element("div", *figures, class_="figures") if figures else None,
        id="validation",
    )
