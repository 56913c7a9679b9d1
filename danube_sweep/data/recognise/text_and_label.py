"""A text and a label, or texts alone: which column is which, and which head reads the label."""

from typing import Final

from danube_sweep.data.arena_format import probabilities
from danube_sweep.data.file_columns import FileColumns
from danube_sweep.data.labels import distinct_labels, to_number
from danube_sweep.data.recognise.guess import ID_NAMES, Given, Guess, check_test_columns, guess_id
from danube_sweep.errors import DataError

TEXTS: Final = (
    "text", "full_text", "comment_text", "sentence", "utterance", "query", "question", "comment", "review", "message",
    "content", "body", "document_text", "essay", "article", "abstract", "tweet", "prompt", "input", "title",
)  # fmt: skip
LABELS: Final = (
    "label", "labels", "target", "class", "category", "intent", "sentiment", "topic", "score", "rating", "stars",
    "grade", "y", "tag", "tags", "domain1_score", "genre", "language", "toxic",
)  # fmt: skip
SCALES: Final = ("score", "rating", "stars", "star", "grade", "level", "rank", "quality", "points")
MOST_STEPS = 10
"""Whole numbers with more values than this are numbers, and no steps of a scale."""


def guess_table(seen: FileColumns, given: Given, tested: FileColumns | None) -> list[Guess]:
    """The guesses for a text and a label, or for texts alone; `tested`: a file to predict.

    Raises DataError for a file without texts, and for one whose label is not clear.
    """
    text = _text(seen, given, tested)
    several = _several(seen, given, text)
    if several is not None:
        return [
            Guess("data", "table", "a column of texts, and numbers from 0 to 1 in all others"),
            several[0],
            Guess("data.text_column", text, _why_text(seen, text)),
            several[1],
            *guess_id(seen, given, [text, *several[1].value]),
        ]
    found = _label(seen, given, text, None if tested is None else tested.names)
    if found is None or given.text("data") == "text":
        return _texts_alone(seen, given, text)
    label, why = found
    return [
        Guess("data", "table", f"a column of texts, {text}, and one of labels, {label}"),
        _head(seen, label),
        Guess("data.text_column", text, _why_text(seen, text)),
        Guess("data.label_column", label, why),
        *guess_id(seen, given, [text, label]),
    ]


def _texts_alone(seen: FileColumns, given: Given, text: str) -> list[Guess]:
    if given.text("data") == "table":
        raise DataError(f"data.path={seen.path}: no column is a label; give data.label_column=COLUMN")
    return [
        Guess("data", "text", f"texts in {text}, and no label"),
        Guess("head", "lm", "there is nothing to learn but the next token"),
        Guess("data.text_column", text, _why_text(seen, text)),
    ]


def _text(seen: FileColumns, given: Given, tested: FileColumns | None) -> str:
    if (asked := given.column("data.text_column", seen)) is not None:
        return asked
    but = [given.column("data.label_column", seen), given.column("data.id_column", seen)]
    left = [name for name in seen.names if name not in but and (tested is None or name in tested.names)]
    named = seen.named(TEXTS, but=[*but, *(name for name in seen.names if name not in left)])
    # A name is enough for a few short texts; several columns of texts need the longest.
    if named is not None and not seen.are_numbers(named) and seen.lists(named) is None:
        return named
    texts = [name for name in left if seen.are_texts(name) and name.lower() not in ID_NAMES]
    if not texts and tested is not None:
        check_test_columns(seen, tested, [_text(seen, given, None)])
    if not texts:
        shown = ", ".join(map(repr, seen.names[:8])) + (", …" if len(seen.names) > 8 else "")
        raise DataError(
            f"data.path={seen.path}: no column holds texts (it has {shown}); give data.text_column=COLUMN, or another "
            "file"
        )
    return max(texts, key=seen.characters)


def _why_text(seen: FileColumns, text: str) -> str:
    return "its name" if text.lower() in TEXTS else f"the longest texts, {seen.characters(text):.0f} characters each"


def _several(seen: FileColumns, given: Given, text: str) -> tuple[Guess, Guess] | None:
    """The head and the columns, where every other column is a class with its share."""
    if any(given.text(f"data.{name}") for name in ("label_column", "classes")):
        return None
    others = [name for name in seen.names if name != text and name.lower() not in ID_NAMES]
    if (asked := given.text("data.soft_label_columns")) is not None:
        others = [seen.require(name.strip(" '\""), "data.soft_label_columns") for name in asked.strip("[]").split(",")]
    columns = [name for name in others if seen.are_numbers(name) and _are_shares(seen, name)]
    if len(columns) < 2 or len(columns) < len(others):
        return None
    rows = list(zip(*(seen.values[name] for name in columns), strict=True))
    if all(probabilities(list(row)) is not None for row in rows):
        head = Guess("head", "sequence", f"{len(columns)} columns of probabilities that sum to 1")
    else:
        head = Guess("head", "multilabel", f"{len(columns)} columns of 0 to 1 that do not sum to 1")
    return head, Guess("data.soft_label_columns", columns, "every other column is a number from 0 to 1")


def _are_shares(seen: FileColumns, name: str) -> bool:
    return all(0 <= to_number(value) <= 1 for value in seen.labels(name))


def _label(seen: FileColumns, given: Given, text: str, tested: list[str] | None) -> tuple[str, str] | None:
    """The label's column and why; None for texts without a label. Raises DataError if several may be it."""
    if (asked := given.column("data.label_column", seen)) is not None:
        return asked, "given"
    but = [text, given.column("data.id_column", seen), given.column("data.group_column", seen)]
    unseen = [] if tested is None else [name for name in seen.names if name not in tested and name not in but]
    if len(unseen) == 1:
        return unseen[0], "the only column that the test file lacks"
    named = seen.named(LABELS, but=but)
    if named is not None and (tested is None or named not in tested or not unseen):
        return named, "its name"
    left = [name for name in seen.names if name not in but and name.lower() not in ID_NAMES]
    likely = [name for name in unseen or left if _may_label(seen, name)]
    if len(likely) == 1:
        return likely[0], "the only column with values that repeat"
    if not left:
        return None
    shown = ", ".join(map(repr, (likely or left)[:8]))
    raise DataError(
        f"data.path={seen.path}: texts in {text!r}, but which column is the label ({shown})? Give "
        "data.label_column=COLUMN, or data=text head=lm for texts alone"
    )


def _may_label(seen: FileColumns, name: str) -> bool:
    return seen.are_numbers(name) or 1 < seen.distinct(name) <= seen.rows / 2


def _head(seen: FileColumns, label: str) -> Guess:
    if seen.lists(label) is not None:
        return Guess("head", "multilabel", "its labels are lists")
    classes = distinct_labels(seen.labels(label))
    if not seen.are_numbers(label):
        return Guess("head", "sequence", f"{len(classes)} different labels that are no numbers")
    numbers = sorted(map(to_number, classes))
    whole = all(number.is_integer() for number in numbers)
    if not whole or len(numbers) > 2 * MOST_STEPS:
        return Guess("head", "regression", f"numbers from {numbers[0]:g} to {numbers[-1]:g}")
    shown = f"{len(numbers)} whole numbers, {numbers[0]:g} to {numbers[-1]:g}"
    scale = label.lower() in SCALES or (numbers[0] == 1 and len(numbers) > 3)
    if len(numbers) > 2 and scale and len(numbers) <= MOST_STEPS:
        return Guess("head", "ordinal", f"{shown}: steps of a scale; head=regression reads them as numbers")
    more = "; head=ordinal if they are steps of a scale" if len(numbers) > 2 else ""
    return Guess("head", "sequence", f"{shown}: the numbers of classes{more}")
