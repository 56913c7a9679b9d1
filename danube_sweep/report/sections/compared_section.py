"""The comparison, and published results."""

from danube_sweep.benchmark.published import Published, Table
from danube_sweep.report.markup import Markup, element, joined
from danube_sweep.report.page_data import Report


def compared_section(report: Report) -> Markup:
    """The facts that the numbers hang on."""
    rows = [
        element(
            "tr",
            element("th", fact.name, scope="row"),
            element(
                "td", element("bdi", fact.value), element("b", " differs", class_="warn") if fact.differs else None
            ),
        )
        for fact in report.compared
    ]
    references = ", ".join(f"{name} {value:.4f}" for name, value in report.references.items())
    if references:
        said = f"{report.ranking.metric}: {references} (lines in the pictures)"
        rows.append(element("tr", element("th", "without reading", scope="row"), element("td", said)))
    facts = element("table", *rows, class_="facts") if rows else element("p", "Nothing yet.")
    published = _published(report.published) if report.published else None
    return element("section", element("h2", "What was compared"), facts, published, id="compared")


def _published(published: Published) -> Markup:
    return joined(*(_table(one, set(published.models)) for one in published.tables))


def _table(table: Table, models: set[str]) -> Markup:
    kinds = ["mine" if model in models else None for model in table.models]
    names = [element("th", model, scope="col", class_=kind) for model, kind in zip(table.models, kinds, strict=True)]
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", figure, class_=kind) for figure, kind in zip(figures, kinds, strict=True)),
        )
        for name, figures in table.rows
    ]
    drawn = element("table", element("tr", element("td"), *names), *rows, class_="published")
    box = element("div", drawn, class_="scroll", tabindex=0, role="region", aria_label=table.title)
    return joined(element("h3", table.title), element("p", table.note, class_="quiet"), box)
