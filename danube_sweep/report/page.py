"""The whole page: one HTML text that needs nothing beside it."""

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from danube_sweep import __version__
from danube_sweep.report.collect import gather
from danube_sweep.report.markup import Markup, Part, element, joined
from danube_sweep.report.page_data import Report
from danube_sweep.report.sections.answer_section import answer_section
from danube_sweep.report.sections.compared_section import compared_section
from danube_sweep.report.sections.data_section import data_section
from danube_sweep.report.sections.picture_section import pictures_section
from danube_sweep.report.sections.ranking_section import ranking_section
from danube_sweep.storage.files import write_text
from danube_sweep.storage.outputs import check_place, refuse_existing

FILE: Final = "report.html"


def page(report: Report) -> str:
    """The page of a sweep."""
    title = "/".join(report.path.resolve().parts[-2:])
    script = _static("page.js")
    sections = [answer_section(report), ranking_section(report), pictures_section(report)]
    sections += [found for found in (data_section(report), compared_section(report)) if found is not None]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title}: sweep report"),
        element("style", Markup(_static("page.css"))),
    )
    body = element(
        "body", _header(report, title), element("main", *sections), _footer(), element("script", Markup(script))
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def page_file(path: Path, output: Path | None, *, overwrite: bool) -> Path:
    """Where the page of the sweep in `path` goes. Raises CheckpointError for no sweep, DiskError for a place in use."""
    file = output or path / FILE
    if path.is_dir():  # what is no folder is no sweep, which drawing it says
        check_place(file, "-o")
        refuse_existing(file, "-o", overwrite=overwrite)
    return file


def write_page(path: Path, output: Path | None = None) -> tuple[Report, Path]:
    """Draws the sweep in `path` into `output`, by default its report.html; returns the report and its file.

    Raises CheckpointError for a folder that is not a sweep and DiskError for a file that cannot be written.
    """
    file = output or path / FILE
    report = gather(path, beside=file.parent)
    write_text(file, page(report))
    return report, file


def _policy(script: str) -> str:
    # The one script that the page carries may run, and nothing may be fetched.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


@cache
def _static(name: str) -> str:
    return (resources.files("danube_sweep.report") / "static" / name).read_text(encoding="utf-8")


def _header(report: Report, title: str) -> Markup:
    counted = report.counted
    states = ", ".join(f"{count} {state}" for state, count in sorted(counted.items(), key=lambda one: -one[1]))
    total = sum(counted.values())
    said: list[Part] = [f"{total} trial{'s' * (total != 1)}{': ' if states else ''}{states}"]
    said.append(f"drawn {report.drawn:%Y-%m-%d %H:%M} UTC")
    if not report.answer.learned:
        said.append(element("b", "nothing was learned", class_="warn"))
    if report.under_way:
        said.append(element("b", "still under way", class_="warn"))
    links = {"answer": "Answer", "ranking": "Ranking", "pictures": "Pictures"}
    links |= {**({"data": "Data"} if report.data else {}), "compared": "Compared"}
    nav = element("nav", *(element("a", name, href=f"#{key}") for key, name in links.items()), aria_label="Sections")
    heading = element("h1", element("bdi", title))
    return element(
        "header", element("p", "Sweep report", class_="eyebrow"), heading, element("p", joined(*said, by=" · ")), nav
    )


def _footer() -> Markup:
    said = f"danube-sweep {__version__}. This page is one file. It loads nothing and sends nothing."
    return element("footer", element("p", said, class_="quiet"))
