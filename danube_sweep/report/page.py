"""The whole page: one HTML text that needs nothing beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from danube_sweep.report.collect import gather
from danube_sweep.report.document import document, header, static
from danube_sweep.report.markup import Markup, Part, element
from danube_sweep.report.page_data import Report
from danube_sweep.report.sections.answer_section import answer_section
from danube_sweep.report.sections.compared_section import compared_section
from danube_sweep.report.sections.data_section import data_section
from danube_sweep.report.sections.explore_section import explore_section
from danube_sweep.report.sections.picture_section import pictures_section
from danube_sweep.report.sections.ranking_section import ranking_section
from danube_sweep.report.sections.validation_section import validation_section
from danube_sweep.storage.files import write_text
from danube_sweep.storage.outputs import check_place, refuse_existing

FILE: Final = "report.html"
REFRESH_S: Final = 60
"""Seconds after which the page of a running sweep loads itself again, as often as `watch` draws it."""
_SCRIPTS: Final = ("page.js", "filter.js", "explore.js", "sides.js", "refresh.js")
_SECTIONS: Final[dict[str, Callable[[Report], Markup | None]]] = {
    "Answer": answer_section,
    "Ranking": ranking_section,
    "Explore": explore_section,
    "Pictures": pictures_section,
    "Validation": validation_section,
    "Data": data_section,
    "Compared": compared_section,
}
"""By their name in the navigation, which is also their id."""


def page(report: Report) -> str:
    """The page of a sweep."""
    title = " and ".join("/".join(path.resolve().parts[-2:]) for path in report.paths)
    drawn = {name: found for name, draw in _SECTIONS.items() if (found := draw(report)) is not None}
    return document(
        f"{title}: sweep report",
        _header(report, title, list(drawn)),
        drawn.values(),
        script="".join(map(static, _SCRIPTS)),
        refresh_s=REFRESH_S if report.under_way else None,
    )


def page_file(path: Path, output: Path | None, *, overwrite: bool, second: Path | None = None) -> Path:
    """Where the page of the sweep in `path` goes: its report.html, or for two sweeps one in the current folder.

    Raises CheckpointError for no sweep, DiskError for a place in use.
    """
    file = output or (path / FILE if second is None else Path(FILE))
    if path.is_dir():  # what is no folder is no sweep, which drawing it says
        check_place(file, "-o", draws=FILE)
        refuse_existing(file, "-o", overwrite=overwrite, draws=FILE)
    return file


def write_page(path: Path, output: Path | None = None, second: Path | None = None) -> tuple[Report, Path]:
    """Draws the sweep in `path`, with a `second` one beside it, into `output`; returns the report and its file.

    Without `output` it is the report.html of the first. Raises CheckpointError for a folder that is not a sweep and
    DiskError for a file that cannot be written.
    """
    file = output or path / FILE
    report = gather(path, beside=file.parent, second=second)
    write_text(file, page(report))
    return report, file


def _header(report: Report, title: str, sections: Sequence[str]) -> Markup:
    counted = report.counted
    states = ", ".join(f"{count} {state}" for state, count in sorted(counted.items(), key=lambda one: -one[1]))
    total = sum(counted.values())
    said: list[Part] = [f"{total} trial{'s' * (total != 1)}{': ' if states else ''}{states}"]
    said.append(f"drawn {report.drawn:%Y-%m-%d %H:%M} UTC")
    if not report.answer.learned:
        said.append(element("b", "nothing was learned", class_="warn"))
    if report.under_way:
        said.append(element("b", "still under way", class_="warn"))
        said.append(f"danube-sweep watch draws it again, and this page loads itself again every {REFRESH_S} s")
        said.append(element("button", "Stop loading", type="button", id="stop"))
    return header("Sweep report", title, said, sections)
