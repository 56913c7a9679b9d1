"""A page of a report, parsed strictly: whatever is not closed, or closed twice, is an error."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "input"}
DRAWN = {"circle", "line", "path", "polyline", "rect"}


@dataclass
class Node:
    """An element: its attributes and what is in it."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    inside: "list[Node | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.inside)

    def all(self, tag: str, **wanted: str) -> "Iterator[Node]":
        """Elements of a tag in it, by attributes (`class_` for class)."""
        for one in self.inside:
            if isinstance(one, Node):
                named = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}
                if one.tag == tag and all(
                    key in one.attributes and value in (one.attributes[key] or "") for key, value in named.items()
                ):
                    yield one
                yield from one.all(tag, **wanted)

    def one(self, tag: str, **wanted: str) -> "Node":
        return next(self.all(tag, **wanted))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Node("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.stack[-1].inside.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, tag
        self.stack[-1].inside.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}>"
        done = self.stack.pop()
        if done.attributes.get("type") == "text/plain":  # an opened row, as the page's script puts it there
            self.stack[-1].inside[-1:] = parsed(done.text).inside

    def handle_data(self, data: str) -> None:
        self.stack[-1].inside.append(data)


def parsed(html: str) -> Node:
    """The page as a tree."""
    reader = _Reader()
    reader.feed(html)
    assert [node.tag for node in reader.stack] == ["page"]
    return reader.stack[0]


def ranking_of(page: Node) -> list[dict[str, str]]:
    """The rows of the ranking as they are shown, by their column's title."""
    table = page.one("table", id="table")
    titles = ["", *(one.text for one in table.all("button", data_sort=""))]
    rows = []
    for body in table.all("tbody", data_row="r"):
        cells = [cell for cell in body.inside[0].inside if isinstance(cell, Node)]  # type: ignore[union-attr]
        rows.append(dict(zip(titles, (cell.text for cell in cells), strict=True)))
    return rows


def section(page: Node, key: str) -> str:
    """The text of a section."""
    return page.one("section", id=key).text
