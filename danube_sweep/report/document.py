"""The frame of a page: one HTML text that loads nothing, with its style, its script and a policy for them."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

from danube_sweep import __version__
from danube_sweep.report.markup import Markup, Part, element, joined


def document(
    title: str, heading: Markup, sections: Iterable[Markup], *, script: str = "", refresh_s: int | None = None
) -> str:
    """The whole page; `refresh_s`: seconds after which it loads itself again."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(static("page.css"))),
    )
    body = element(
        "body",
        heading,
        element("main", *sections),
        _footer(),
        element("script", Markup(script)) if script else None,
        data_refresh=None if refresh_s is None else str(refresh_s),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def header(kind: str, title: str, said: Sequence[Part], sections: Iterable[str]) -> Markup:
    """The top of a page, with links to its sections."""
    links = [element("a", name, href=f"#{name.lower()}") for name in sections]
    nav = element("nav", *links, aria_label="Sections")
    heading = element("h1", element("bdi", title))
    return element("header", element("p", kind, class_="eyebrow"), heading, element("p", joined(*said, by=" · ")), nav)


@cache
def static(name: str) -> str:
    """A file of the folder static."""
    return (resources.files("danube_sweep.report") / "static" / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    # The one script that the page carries may run, and nothing may be fetched.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


def _footer() -> Markup:
    said = f"danube-sweep {__version__}. This page is one file. It loads nothing and sends nothing."
    return element("footer", element("p", said, class_="quiet"))
