"""README and docs are written in short, plain sentences, which is measured.

The rule. Code blocks, headings and pictures are left out. A paragraph, a list item and a table cell each stand alone,
and a sentence never crosses their borders. Inside them, a sentence ends at a full stop, question mark or exclamation
mark followed by a space. A colon or a semicolon does not end a sentence. A word is a run of characters with a letter or
a digit, a code span is one word, and a link counts with its text. Pieces of fewer than four words (numbers in cells,
labels in bold) are not counted, since they would make every page look short. Neither is a cell that repeats an earlier
one.
"""

import re
from pathlib import Path
from statistics import median, quantiles

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("CONTRIBUTING.md"))]
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "no.", "No.")
AMERICAN = re.compile(
    r"\b((re)?quantiz\w+|tokeniz(e|es|ed|ing|ation)|normaliz\w+|standardiz\w+|minimiz\w+|maximiz\w+|summariz\w+|"
    r"initializ\w+|recogniz\w+|serializ\w+|optimiz(e|es|ed|ing|ation)|randomiz\w+|behaviors?|colors?|colored|labeled|"
    r"labeling|modeling|centers?|centered|favors?|favored|neighbors?)\b",
    re.I,
)
"""Docs use British spelling, like our own names (`quantised`, `labelled`). Two terms keep the spelling of the libraries
(tokenizer, optimizer), and so do identifiers and values in code spans."""


def blocks(text: str) -> list[str]:
    """Paragraphs, list items and table cells, without code blocks, headings, pictures and tables' rules."""
    text = re.sub(r"^ *```.*?^ *```$", "\n", text, flags=re.S | re.M)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<!--.*?-->", "", text, flags=re.S)
    found = [""]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found += [*(cell for cell in cells if not re.fullmatch(r"[ :-]*", cell)), ""]
        elif not line.strip() or line.startswith("#"):
            found.append("")
        elif re.match(r" *([-*]|\d+\.) ", line):
            found.append(re.sub(r"^ *([-*]|\d+\.) ", "", line))
        else:
            found[-1] += " " + line
    return [block for block in found if block.strip()]


def words(text: str) -> list[str]:
    return [word for word in text.split() if re.search(r"\w", word)]


def plain(block: str) -> str:
    """A block with code spans as one word and links as their text."""
    block = re.sub(r"``.+?``|`[^`]+`", "CODE", block)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", block)


def sentences(text: str) -> list[str]:
    """The sentences of a page that have at least four words."""
    found = []
    for block in dict.fromkeys(blocks(text)):
        sentence = ""
        for piece in re.split(r"""(?<=[.!?])(?=["')*_”]*\s)""", plain(block)):
            sentence += piece
            if not sentence.endswith(ABBREVIATIONS):
                found.append(sentence)
                sentence = ""
        found.append(sentence)
    return [sentence for sentence in found if len(words(sentence)) >= 4]


def test_the_rule_counts_as_stated() -> None:
    page = """\
# A heading is no sentence

One sentence of `five or more` words. Another one; which goes on,
e.g. over two lines (it does so.) Too short.

- [A list item](there.md) without a stop
- Is this a question? No, it is 1.5 answers!

| a table's cell counts | 12 |
| --- | --- |

```bash
code does not count at all
```
"""
    assert [len(words(sentence)) for sentence in sentences(page)] == [5, 12, 6, 4, 5, 4]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_short_sentences(page: Path) -> None:
    found = sorted(sentences(page.read_text(encoding="utf-8")), key=lambda sentence: len(words(sentence)))
    lengths = [len(words(sentence)) for sentence in found]
    assert median(lengths) <= 16
    assert quantiles(lengths, n=10, method="inclusive")[-1] <= 30, "\n".join(found[-len(found) // 10 :])


def test_the_docs_seldom_use_what() -> None:
    said = [
        word for page in PAGES for block in blocks(page.read_text(encoding="utf-8")) for word in words(plain(block))
    ]
    whats = sum(word.strip("\"'()*.,:;?“”").lower() == "what" for word in said)
    assert 1000 * whats / len(said) <= 1.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_one_spelling(page: Path) -> None:
    text = " ".join(plain(block) for block in blocks(page.read_text(encoding="utf-8")))
    assert not [match.group() for match in AMERICAN.finditer(text)]
